"""Learning rates of every policy, compared with the original's get_current_rate."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.paths import REFERENCE
from training.schedule import Schedule
from utils import cfg
from utils.errors import InputError
from utils.net_options import ScheduleOptions

RECORDED = json.loads((REFERENCE / "lr.json").read_text())["schedules"]


def read(name: str) -> ScheduleOptions:
    return ScheduleOptions.from_raw(cfg.read(REFERENCE / "lr" / f"{name}.cfg").sections[0])


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_rates_are_the_recorded_ones(name: str) -> None:
    schedule = Schedule(read(name))
    for iteration, rate in RECORDED[name]["rates"]:
        assert schedule.rate(iteration) == pytest.approx(rate, rel=2e-6, abs=1e-12), iteration


def test_random_policy_repeats_itself_and_stays_below_the_rate() -> None:
    options = replace(read("constant"), policy="random", power=2.0)
    first = [Schedule(options, seed=3).rate(i) for i in range(50)]
    assert first == [Schedule(options, seed=3).rate(i) for i in range(50)]
    assert first != [Schedule(options, seed=4).rate(i) for i in range(50)]
    assert all(0 <= rate <= options.learning_rate for rate in first)


def test_cosine_falls_from_the_rate_to_its_least_after_burn_in() -> None:
    options = replace(read("steps_burnin"), learning_rate_min=0.0)
    schedule = Schedule(options, cosine=True)
    assert schedule.rate(options.burn_in) == pytest.approx(options.learning_rate)
    assert schedule.rate(options.max_batches) == pytest.approx(0.0, abs=1e-12)
    assert schedule.rate(options.burn_in // 2) == Schedule(options).rate(options.burn_in // 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": "steps", "steps": (), "scales": ()},
        {"policy": "steps", "steps": (10, 20), "scales": (0.1,)},
        {"policy": "poly", "max_batches": 0},
        {"policy": "sgdr", "max_batches": 0},
        {"policy": "step", "step": 0},
    ],
)
def test_a_policy_without_its_parameters_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"\[net\]"):
        Schedule(replace(read("constant"), **changes))  # type: ignore[arg-type]

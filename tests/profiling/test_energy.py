"""RAPL counters: found, summed, corrected for wrap-around, and missing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from profiling.energy import BUSY_S, IDLE_S, EnergyCounter, energy_counter, measure_energy, sampled_counter

CPU = torch.device("cpu")


def _package(folder: Path, number: int, value: int) -> Path:
    package = folder / f"intel-rapl:{number}"
    package.mkdir(parents=True, exist_ok=True)
    (package / "max_energy_range_uj").write_text("1000000\n")
    (package / "energy_uj").write_text(f"{value}\n")
    return package / "energy_uj"


def test_packages_are_summed_and_wraps_carried(tmp_path: Path) -> None:
    first, second = _package(tmp_path, 0, 900_000), _package(tmp_path, 1, 100_000)
    (tmp_path / "intel-rapl:0:0").mkdir()  # part of package 0, which includes it
    counter = energy_counter(CPU, tmp_path)
    assert counter is not None
    assert counter.name == "RAPL"
    before = counter.joules()
    first.write_text("100000\n")
    second.write_text("150000\n")
    assert counter.joules() - before == pytest.approx(0.2 + 0.05)


@pytest.mark.parametrize("present", [False, True])
def test_no_counter(tmp_path: Path, present: bool) -> None:
    if present:
        (tmp_path / "intel-rapl:0").mkdir()  # without readable files
    assert energy_counter(CPU, tmp_path) is None
    assert energy_counter(torch.device("meta"), tmp_path) is None


class Processor:
    """A simulated processor: 10 W when idle; a pass takes 0.5 s and 30 J more. Its clock stops between calls."""

    now = joules = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.joules += 10 * seconds

    def run(self) -> None:
        self.sleep(0.5)
        self.joules += 30


def test_idle_power_is_subtracted() -> None:
    processor = Processor()
    counter = EnergyCounter("test", lambda: processor.joules)
    use = measure_energy(counter, processor.run, clock=lambda: processor.now, sleep=processor.sleep)
    assert (use.idle_watts, use.busy_watts, use.joules) == pytest.approx((10, 70, 30))
    assert use.passes == 6 and processor.now == pytest.approx(IDLE_S + BUSY_S, abs=0.15)


def test_noise_gives_no_negative_energy() -> None:
    processor = Processor()
    processor.run = lambda: setattr(processor, "now", processor.now + 1)  # type: ignore[method-assign]
    counter = EnergyCounter("test", lambda: processor.joules)
    use = measure_energy(counter, processor.run, clock=lambda: processor.now, sleep=processor.sleep)
    assert use.busy_watts == 0 and use.joules == 0


def test_power_is_integrated() -> None:
    counter = sampled_counter("test", lambda: 50.0)
    start = time.perf_counter()
    before, counted = counter.joules(), time.perf_counter()
    time.sleep(0.3)
    shortest = time.perf_counter() - counted
    used = counter.joules() - before
    assert 0.999 * 50 * shortest <= used <= 1.001 * 50 * (time.perf_counter() - start)

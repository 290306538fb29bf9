"""Traffic of layers and peak memory, counted by hand on a small network and against CIO on real ones."""

from __future__ import annotations

import pytest

from models.plan import make_plan, read_plan
from models.summary import layer_loads, peak_activation_bytes, totals
from tests.paths import REPOSITORY
from utils import cfg

SMALL = """[net]
width=8
height=8
channels=3
[convolutional]
filters=4
size=3
pad=1
[maxpool]
size=2
stride=2
[upsample]
stride=2
[route]
layers=-1,0
"""


def test_layers_that_compute() -> None:
    first, pool = layer_loads(make_plan(cfg.parse(SMALL)))
    assert (first.index, first.input, first.output, first.operations) == (0, 192, 256, 2 * 4 * 27 * 64)
    assert (pool.index, pool.input, pool.output, pool.operations) == (1, 256, 64, 4 * 4 * 16)


def test_peak_memory_holds_what_is_still_read() -> None:
    # At the route: its own 512 values, the upsampled 256, and layer 0's 256, which it reads too.
    assert peak_activation_bytes(make_plan(cfg.parse(SMALL))) == 4 * (512 + 256 + 256)
    assert peak_activation_bytes(make_plan(cfg.parse(SMALL)), batch=3) == 3 * 4 * (512 + 256 + 256)


@pytest.mark.parametrize("name", ["resnext50", "csppeleenet-efm"])
def test_sum_of_layers_is_cio(name: str) -> None:
    plan = read_plan(REPOSITORY / "cfg" / f"{name}.cfg")
    sums = totals(plan)
    assert sum(load.input + load.output for load in layer_loads(plan)) == sums["cio"]
    assert sum(load.operations for load in layer_loads(plan)) == pytest.approx(1e9 * sums["bflops_paper"])

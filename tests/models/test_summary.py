"""Memory traffic and peak memory, compared with a manual count on a small network and with CIO on real ones."""

from __future__ import annotations

import pytest

from models.plan import make_plan, read_plan
from models.summary import layer_loads, layer_table, peak_activation_bytes, totals
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


def test_layers_with_operations() -> None:
    first, pool = layer_loads(make_plan(cfg.parse(SMALL)))
    assert (first.input, first.output, first.operations) == (192, 256, 2 * 4 * 27 * 64)
    assert (pool.input, pool.output, pool.operations) == (256, 64, 4 * 4 * 16)


def test_peak_memory_holds_what_is_still_read() -> None:
    # At the route: its own 512 values, and the two inputs: 256 from the upsampling, 256 from layer 0.
    assert peak_activation_bytes(make_plan(cfg.parse(SMALL))) == 4 * (512 + 256 + 256)


@pytest.mark.parametrize("name", ["resnext50", "csppeleenet-efm"])
def test_sum_of_layers_is_cio(name: str) -> None:
    plan = read_plan(REPOSITORY / "cfg" / f"{name}.cfg")
    sums = totals(plan)
    assert sum(load.input + load.output for load in layer_loads(plan)) == sums["cio"]
    assert sum(load.operations for load in layer_loads(plan)) == pytest.approx(1e9 * sums["bflops_paper"])


DETAILS = """[net]
width=8
height=8
channels=4
[convolutional]
batch_normalize=1
filters=4
size=3
stride_x=2
stride_y=1
pad=1
groups=2
activation=leaky
[convolutional]
filters=4
size=3
padding=1
dilation=1
activation=linear
[maxpool]
size=3
stride=2
[route]
layers=-1,-3
groups=2
group_id=1
[shortcut]
from=-2
activation=mish
[connected]
output=21
[region]
anchors=1,2, 3.5,4
num=3
classes=2
"""


def test_details_of_layers() -> None:
    text = DETAILS.replace("layers=-1,-3", "layers=1,0").replace("from=-2", "from=1")
    steps = make_plan(cfg.parse(text)).steps
    assert [step.section.detail(step.site) for step in steps] == [
        "3x3/2x1 bn leaky groups 2",
        "3x3 linear",
        "3x3/2",
        "layers 1, 0 group 1 of 2",
        "layer 1 mish",
        "logistic",
        "1x2 3.5x4 0.5x0.5",
    ]
    table = layer_table(make_plan(cfg.parse(text)))
    assert all(step.section.detail(step.site) in line for step, line in zip(steps, table.split("\n")[1:], strict=True))

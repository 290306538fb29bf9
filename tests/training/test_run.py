"""How many passes of an update a training run makes at the same time."""

from __future__ import annotations

import pytest

from models.plan import make_plan
from training.run import passes_at_once
from utils import cfg

TEXT = """[net]
width=100
height=100
channels=3
batch=64
subdivisions=16
[convolutional]
filters=14
size=1
activation=linear
[yolo]
mask=0,1
anchors=4,4, 8,8
classes=2
num=2
random={random}
"""
PASS = 16 * 4 * 2 * 14 * 100 * 100  # bytes: 16 for each output of two layers and four images


@pytest.mark.parametrize(
    ("random", "threads", "memory", "expected"),
    [
        (0, 1, None, 1),
        (0, 4, None, 4),
        (0, 64, None, 8),
        (0, 4, 2 * 4 * PASS, 4),
        (0, 4, 2 * 4 * PASS - 1, 3),
        (0, 4, 100, 1),
        (1, 4, 2 * 4 * PASS, 2),
        (1.9, 4, 2 * 4 * PASS, 1),
    ],
)
def test_as_many_passes_at_the_same_time_as_threads_and_memory_allow(
    random: float, threads: int, memory: int | None, expected: int
) -> None:
    plan = make_plan(cfg.parse(TEXT.format(random=random), "test.cfg"))
    assert passes_at_once(plan, threads, memory) == expected

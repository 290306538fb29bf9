"""Waiting images go through the network as a batch, and each gets its own answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from inference.predictor import NmsOptions
from serving.batching import NetworkThread
from utils.letterbox import Letterbox

LETTERBOX = Letterbox(image_wh=(4, 4), network_wh=(4, 4))
LOW, HIGH = NmsOptions(conf=0.1), NmsOptions(conf=0.9)


class Echo:
    """A model that returns the first pixel and the threshold, after waiting for permission to continue."""

    network = SimpleNamespace()

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.started, self.may_go_on = threading.Event(), threading.Event()

    def forward(self, images: torch.Tensor) -> Any:
        self.started.set()
        assert self.may_go_on.wait(10)
        self.batches.append(len(images))
        if images.max() > 1:
            raise ValueError("too bright")
        return images

    def postprocess(self, outputs: torch.Tensor, letterboxes: list[Letterbox], options: NmsOptions) -> list[Any]:
        assert len(letterboxes) == len(outputs)
        return [(float(each[0, 0, 0]), options.conf) for each in outputs]


@pytest.fixture
def model() -> Echo:
    return Echo()


@pytest.fixture
def network(model: Echo) -> Iterator[NetworkThread]:
    found = NetworkThread(model, 3)  # type: ignore[arg-type]
    first = found.submit(pixels(0), LETTERBOX, LOW)  # keeps the others waiting
    assert model.started.wait(10)
    yield found
    assert first.result(10) == (0.0, 0.1)
    found.close()


def pixels(value: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.full((3, 4, 4), value, np.float32)


def test_each_gets_its_own_answer(model: Echo, network: NetworkThread) -> None:
    """Batches share the same options, have at most 3 images, and the one that has waited longest comes first."""
    values = [(0.5, LOW), (0.25, HIGH), (0.125, LOW), (0.0625, LOW), (0.75, HIGH), (1.0, LOW)]
    waiting = [network.submit(pixels(value), LETTERBOX, options) for value, options in values]
    model.may_go_on.set()
    assert [each.result(10) for each in waiting] == [(value, options.conf) for value, options in values]
    assert model.batches == [1, 3, 2, 1] and (network.images, network.batches) == (7, 4)


def test_a_cancelled_image(model: Echo, network: NetworkThread) -> None:
    gone, other = (network.submit(pixels(0.5), LETTERBOX, options) for options in (LOW, HIGH))
    assert gone.cancel()
    model.may_go_on.set()
    assert other.result(10) == (0.5, 0.9) and model.batches == [1, 1]


def test_an_error_affects_only_its_batch(model: Echo, network: NetworkThread) -> None:
    bad = network.submit(pixels(2), LETTERBOX, LOW)
    good = network.submit(pixels(0.5), LETTERBOX, HIGH)
    model.may_go_on.set()
    with pytest.raises(ValueError, match="too bright"):
        bad.result(10)
    assert good.result(10) == (0.5, 0.9)

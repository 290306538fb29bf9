"""Latency of a forward pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.load import load
from profiling.timing import WARM_UP, settle_statistics, time_forward
from tests.paths import REPOSITORY


class Counting(nn.Module):
    """A network that counts its passes."""

    passes = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return images


def test_warm_up_is_not_timed() -> None:
    network = Counting()
    assert time_forward(network, torch.zeros(1), 4) > 0
    assert network.passes == WARM_UP + 4


@pytest.mark.parametrize("name", ["yolov3-tiny", "csppeleenet-efm", "csresnext50-prn", "vovnet27-slim-yolov3"])
def test_random_networks_neither_overflow_nor_fade(name: str) -> None:
    torch.manual_seed(0)
    network = settle_statistics(load(REPOSITORY / "cfg" / f"{name}.cfg", width=64, height=64)).eval()
    with torch.inference_mode():
        inputs = network.head_inputs(torch.rand(1, 3, 64, 64))
    for group in inputs:
        for tensor in group:
            assert 1e-6 < float(tensor.abs().max()) < 1e6

"""Networks that are timed with random weights compute with ordinary numbers."""

from __future__ import annotations

import pytest
import torch

from models.load import load
from profiling.timing import steady
from tests.paths import REPOSITORY


@pytest.mark.parametrize("name", ["yolov3-tiny", "csppeleenet-efm", "csresnext50-prn", "vovnet27-slim-yolov3"])
def test_steady_networks_neither_overflow_nor_fade(name: str) -> None:
    torch.manual_seed(0)
    network = steady(load(REPOSITORY / "cfg" / f"{name}.cfg", width=64, height=64)).eval()
    with torch.inference_mode():
        inputs = network.head_inputs(torch.rand(1, 3, 64, 64))
    for group in inputs:
        for tensor in group:
            assert 1e-6 < float(tensor.abs().max()) < 1e6

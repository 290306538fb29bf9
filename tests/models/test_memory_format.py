"""Training keeps the given memory layout: a conversion on the way would silently cost a third of the speed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.network import Network
from models.plan import read_plan

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["yolov3-tiny-prn", "csppeleenet-efm"])
def test_channels_last_through_every_layer(name: str) -> None:
    network = Network(read_plan(ROOT / "cfg" / f"{name}.cfg")).train()
    others = []

    def look(layer: torch.nn.Module, _: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and not output.is_contiguous(memory_format=torch.channels_last):
            others.append(type(layer).__name__)

    for layer in network:
        layer.register_forward_hook(look)
    network.head_inputs(torch.rand(2, 3, 96, 96).contiguous(memory_format=torch.channels_last))
    assert not others

"""A folded and packed network computes what the plain one computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.network import Network
from models.plan import read_plan
from tests.paths import REFERENCE, REPOSITORY
from tests.recipe import input_image

REFUSED = {"shortcut_weights_no_norm"}  # as the original does
CFGS = sorted(path for path in (REFERENCE / "cfg").glob("*.cfg") if path.stem not in REFUSED)
MODELS = [
    REPOSITORY / "cfg" / f"{name}.cfg"
    for name in ("csppeleenet-efm", "csresnext50-panet-spp", "yolov3-tiny-prn", "vovnet27-slim")
]


@pytest.mark.parametrize("path", [*CFGS, *MODELS], ids=lambda path: path.stem)
def test_same_outputs(path: Path) -> None:
    torch.manual_seed(3)
    small = 96 if path in MODELS else None
    plan = read_plan(path, width=small, height=small)
    network = Network(plan).eval()
    for _, item in network.stored():
        if item.kind == "rolling_variance":
            item.tensor.uniform_(0.5, 1.5)
    shape = plan.input
    images = torch.from_numpy(input_image(2 * shape.outputs)).view(2, shape.channels, shape.height, shape.width)
    with torch.inference_mode():
        before = network(images)
        after = network.fold(pack=True)(images)
    for plain, packed in zip(before, after, strict=True):
        scale = plain.std().item() if plain.numel() > 1 else 1.0
        assert torch.allclose(plain, packed, rtol=1e-4, atol=1e-5 * (scale or 1.0))

"""Where the authors published a cfg, ours is the same function of the same weights file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.load import load
from models.weights import save_weights
from profiling.timing import settle_statistics
from tests.paths import REPOSITORY, shared

SIDE = 64
PUBLISHED = {
    "darknet-ref": "csp/darknet",
    "resnet10": "csp/resnet10",
    "resnext50": "csp/resnext50",
    "csresnext50": "csp/csresnext50",
    "efficientnet-b0": "csp/enetb0",
    "yolov3": "alexeyab/yolov3",
    "yolov3-spp": "alexeyab/yolov3-spp",
    "yolov3-tiny": "prn/yolov3-tiny",
    "yolov3-tiny-prn": "prn/yolov3-tiny-prn",
    "csresnext50-panet-spp": "csp/csresnext50-panet-spp",
    "csresnext50-panet-spp-original-optimal": "csp/csresnext50-panet-spp-original-optimal",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_mean_the_same_here(name: str, tmp_path: Path) -> None:
    theirs = shared(f"zoo/{PUBLISHED[name]}.cfg")
    torch.manual_seed(0)
    ours = settle_statistics(load(REPOSITORY / "cfg" / f"{name}.cfg", width=SIDE, height=SIDE))
    save_weights(ours, tmp_path / "a.weights")
    published = load(theirs, tmp_path / "a.weights", width=SIDE, height=SIDE)
    image = torch.rand(1, 3, SIDE, SIDE)
    with torch.inference_mode():
        pairs = list(zip(ours(image), published(image), strict=True))
    for mine, other in pairs:
        assert mine.isfinite().all()
        assert torch.equal(mine, other)
    (tmp_path / "a.weights").unlink()

"""Where the authors published a cfg, ours is the same function of the same weights file and trains with the same settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compose.published import PUBLISHED_CFGS
from inference.detector import Detector
from models.load import load
from models.network import Network
from models.weights import save_weights
from profiling.timing import settle_statistics
from tests.paths import REPOSITORY, shared
from utils import cfg

SIDE = 64
FOLDERS = {"CrossStagePartialNetworks": "csp", "PartialResidualNetworks": "prn", "darknet": "alexeyab"}
TOLERANCES = {"resnet50": 1e-6, "resnet101": 1e-6, "densenet201": 1e-6}
"""Published with the classifier's convolution before the pooling: the same function, rounded differently."""
FOR_INFERENCE = ("yolov3", "yolov3-spp", "yolov3-tiny", "yolov3-tiny-prn")
"""Published with batch 1, subdivisions 1."""


def _published(name: str) -> Path:
    repository, theirs = PUBLISHED_CFGS[name]
    return shared(f"zoo/{FOLDERS[repository]}/{theirs}.cfg")


@pytest.mark.parametrize("name", PUBLISHED_CFGS)
def test_published_weights_mean_the_same_here(name: str, tmp_path: Path) -> None:
    theirs = _published(name)
    torch.manual_seed(0)
    ours = settle_statistics(load(REPOSITORY / "cfg" / f"{name}.cfg", width=SIDE, height=SIDE))
    save_weights(ours, tmp_path / "a.weights")
    published = load(theirs, tmp_path / "a.weights", width=SIDE, height=SIDE)
    (tmp_path / "a.weights").unlink()
    image = torch.rand(1, 3, SIDE, SIDE)
    with torch.inference_mode():
        pairs = list(zip(_results(ours, image), _results(published, image), strict=True))
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=0, atol=TOLERANCES.get(name, 0))


def _results(network: Network, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Boxes with scores for a detector, so that anchors and masks count too; otherwise the output."""
    outputs = network(image)
    assert all(output.isfinite().all() for output in outputs)
    if network.plan.heads[0].section.names[0] != "yolo":
        return (outputs[0],)
    found = Detector(network).candidates(outputs, 0)
    return found.cxcywh_rel, found.scores


@pytest.mark.parametrize("name", PUBLISHED_CFGS)
def test_trains_with_the_published_settings(name: str) -> None:
    ours, theirs = (
        {key: _number(entry.value) for key, entry in cfg.read(path).sections[0].effective.items()}
        for path in (REPOSITORY / "cfg" / f"{name}.cfg", _published(name))
    )
    if name in FOR_INFERENCE:
        theirs |= {"batch": ours["batch"], "subdivisions": ours["subdivisions"]}
    assert ours == theirs


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text

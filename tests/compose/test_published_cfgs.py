"""Published cfgs: ours are the same functions of the same weights, train with the same settings, and README names them all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from compose.published import PUBLISHED_CFGS
from inference.detector import Detector
from models.load import load
from models.network import Network
from models.published import PUBLISHED
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


# Names of README's claim -> their cfgs here.
CLAIMED = {
    "CSPResNeXt-50": "csresnext50",
    "CSPResNet-50": "csresnet50",
    "CSPDarknet-53": "csdarknet53",
    "CSPMobileNet-v2": "csmobilenet-v2",
    "EfficientNet-B0": "efficientnet-b0",
    "ResNet-10": "resnet10",
    "CSPResNeXt50-PANet-SPP": "csresnext50-panet-spp",
    "YOLOv3": "yolov3",
    "-SPP": "yolov3-spp",
    "-tiny": "yolov3-tiny",
    "-tiny-PRN": "yolov3-tiny-prn",
    "EfficientNet-B0-PRN": "efficientnet-b0-prn",
}
UNPUBLISHED = ("csppeleenet", "speleenet", "peleenext", "cspresnet10", "-ref", "-prn3l", "-efm", "-gfm", "-cem")
"""What README calls neither published as cfg nor as weights, as it appears in the names of our cfgs."""


def _claim() -> tuple[str, str]:
    """README's lists of what has published weights, and of what was never published."""
    text = " ".join((REPOSITORY / "README.md").read_text("utf-8").split())
    published, rest = text.split("`python convert.py fetch` lists them: ", 1)[1].split(")", 1)
    return published, rest.split("For ", 1)[1].split("were published", 1)[0]


def test_readme_lists_the_weights_that_convert_fetches() -> None:
    listed = set(re.split(", | and ", _claim()[0]))
    assert listed == CLAIMED.keys()
    with_weights = {row.cfg.removesuffix(".cfg") for row in PUBLISHED}
    found = {name for name, (_, theirs) in PUBLISHED_CFGS.items() if theirs in with_weights}
    assert found - {"csresnext50-panet-spp-original-optimal"} == set(CLAIMED.values())  # the same layers, trained later


def test_readme_names_what_was_never_published() -> None:
    claim = _claim()[1]
    assert re.findall(r"[A-Z][\w-]+", claim) == [
        *("CSPPeleeNet", "SPeleeNet", "PeleeNeXt", "CSPResNet-10", "Reference", "PRN-3l", "EFM", "GFM", "CEM")
    ]
    stems = [path.stem for path in (REPOSITORY / "cfg").glob("*.cfg")]
    theirs = {row.cfg.removesuffix(".cfg") for row in PUBLISHED} | {cfg for _, cfg in PUBLISHED_CFGS.values()}
    for part in UNPUBLISHED:
        named = {stem for stem in stems if part in stem} - {"darknet-ref"}  # Darknet Reference is a published cfg
        assert named and not named & (PUBLISHED_CFGS.keys() | theirs), part

"""Our twins of published cfgs: same function of the same weights, same training settings, and all named in the docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from compose.backbones import BACKBONES
from compose.catalog import MODELS
from compose.heads import HEADS
from compose.published import PUBLISHED_CFGS
from inference.detector import Detector
from models.load import load
from models.network import Network
from models.published import PUBLISHED, find_published
from models.weights import save_weights
from profiling.timing import settle_statistics
from tests.paths import REPOSITORY, shared
from utils import cfg

SIDE = 64
FOLDERS = {"CrossStagePartialNetworks": "csp", "PartialResidualNetworks": "prn", "darknet": "alexeyab"}
TOLERANCES = {"resnet50": 1e-6, "resnet101": 1e-6, "densenet201": 1e-6}
"""Published with the classifier's convolution before global pooling: the same function, but rounded differently."""
FOR_INFERENCE = ("yolov3", "yolov3-spp", "yolov3-tiny", "yolov3-tiny-prn")
"""Published with batch=1 and subdivisions=1."""


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
    """Boxes with scores for a detector, so that anchors and masks are compared too; otherwise the output."""
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


NEVER_PUBLISHED = {
    "SPeleeNet": "speleenet",
    "PeleeNeXt": "peleenext",
    "CSPPeleeNet": "csppeleenet",
    "Reference": "-ref",
    "CSPResNet-10": "cspresnet10",
    "PRN-3l": "-prn3l",
    "EFM": "-efm",
    "GFM": "-gfm",
    "CEM": "-cem",
}
"""Names in the docs -> part of the names of our cfgs."""


def _page(name: str) -> str:
    return " ".join((REPOSITORY / name).read_text("utf-8").split())


def test_docs_list_the_weights_that_convert_fetches() -> None:
    rows = re.findall(r"\| ([\w-]+) \| \w+ ([\w-]+) \| `python convert.py fetch ([\w-]+)` \|", _page("docs/models.md"))
    assert [(ours, theirs) for ours, theirs, _ in rows] == [
        (ours, theirs)
        for ours, (_, theirs) in PUBLISHED_CFGS.items()
        if f"{theirs}.cfg" in {row.cfg for row in PUBLISHED}
    ]
    assert all(find_published(name).cfg == f"{theirs}.cfg" for _, theirs, name in rows)
    assert all((REPOSITORY / "cfg" / f"{ours}.cfg").is_file() for ours, _, _ in rows)


def test_docs_name_what_was_never_published() -> None:
    whole = re.search(r"For ([^.]*), neither cfgs nor weights were ever published", _page("docs/models.md"))
    short = re.search(r"For ([^.]*), neither cfgs nor weights were ever published", _page("README.md"))
    names = [re.findall(r"[A-Z]\w+(?:-\w+)?", found[1]) for found in (whole, short)]
    assert names[0] == list(NEVER_PUBLISHED) and names[1] and set(names[1]) < set(names[0])
    stems = {path.stem for path in (REPOSITORY / "cfg").glob("*.cfg")}
    published = PUBLISHED_CFGS.keys() | {row.cfg.removesuffix(".cfg") for row in PUBLISHED} | {"darknet-ref"}
    for name, part in NEVER_PUBLISHED.items():
        named = {stem for stem in stems if part in stem} - {"darknet-ref"}  # "Darknet Reference" is a different network
        assert named and not named & published, name


def test_every_cfg_is_published_or_has_another_source() -> None:
    """A cfg declared as published has a published twin, and vice versa."""
    claimed = {
        name
        for name, model in MODELS.items()
        if BACKBONES[model.backbone].origin == "cfg"
        and (model.head.startswith("classifier") or HEADS[model.head].origin == "cfg")
    }
    assert PUBLISHED_CFGS.keys() <= claimed
    joined = claimed - PUBLISHED_CFGS.keys()  # backbone and head were published, but not together
    assert joined == {"csresnext50-prn", "csresnext50-yolov3"}

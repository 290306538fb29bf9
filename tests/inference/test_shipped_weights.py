"""The detectors in weights/: each has its cfg, names and model card, and its weights fit exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data.formats.darknet import read_names
from data.image import read_image
from data.scenes import NAMES
from data.scenes.__main__ import SAMPLES, sample_scene
from evaluation.metrics.matching import pairwise_iou
from inference.model import open_model
from models.load import load
from tests.paths import REPOSITORY
from training.prepare import load_start
from utils.errors import InputError

FOLDER = REPOSITORY / "weights"
SHIPPED = ("scenes", "csppeleenet-efm-bccd", "cspdensenetb-ref-prn-bccd")
MOST_MB = 40


@pytest.mark.parametrize("name", SHIPPED)
def test_loads_with_names_and_card(name: str) -> None:
    network = load(FOLDER / f"{name}.cfg", FOLDER / f"{name}.weights")
    names = read_names(FOLDER / f"{name}.names")
    assert {step.section.classes for step in network.plan.heads} == {len(names)}  # type: ignore[attr-defined]
    assert network.seen > 0
    card = (FOLDER / f"{name}.md").read_text()
    assert all(f"| {row}" in card for row in ("data", "network", "training", "metrics", "licence"))


@pytest.mark.parametrize("name", SHIPPED)
def test_opens_by_name(name: str) -> None:
    model, by_path = open_model(name), open_model(FOLDER / f"{name}.weights", cfg=FOLDER / f"{name}.cfg")
    image = read_image(REPOSITORY / "data" / "samples" / "scene1.jpg")
    assert tuple(model.names) == read_names(FOLDER / f"{name}.names")
    np.testing.assert_array_equal(model.predict([image])[0].scores, by_path.predict([image])[0].scores)


def test_another_cfg_with_shipped_weights(tmp_path: Path) -> None:
    cfg = tmp_path / "small.cfg"
    cfg.write_text(
        (FOLDER / "scenes.cfg").read_text().replace("width=320", "width=96").replace("height=320", "height=96")
    )
    assert open_model("scenes", cfg=cfg).size_wh == (96, 96)


def test_training_starts_from_shipped_weights() -> None:
    network = load(FOLDER / "scenes.cfg")
    load_start(network, "scenes", clear=False)
    trained = load(FOLDER / "scenes.cfg", FOLDER / "scenes.weights")
    assert network.seen == trained.seen > 0
    for ours, theirs in zip(network.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_an_unknown_name_lists_the_shipped_models() -> None:
    with pytest.raises(InputError, match=r"^scene: no such model; the shipped models are .*, scenes$"):
        open_model("scene")


def test_a_file_comes_before_a_shipped_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scenes").mkdir()
    assert open_model("scenes").classes == len(NAMES)  # a folder cannot be a model
    Path("scenes").rmdir()
    Path("scenes").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"^scenes: contains no cfg, expected --cfg"):
        open_model("scenes")


def test_together_they_are_small() -> None:
    assert sum((FOLDER / f"{name}.weights").stat().st_size for name in SHIPPED) < MOST_MB * 1e6


def test_the_detector_of_scenes_finds_every_part_of_the_samples() -> None:
    assert read_names(FOLDER / "scenes.names") == NAMES
    model = open_model(FOLDER / "scenes.weights", cfg=FOLDER / "scenes.cfg")
    images = [read_image(REPOSITORY / "data" / "samples" / f"{name}.jpg") for name in SAMPLES]
    for name, found in zip(SAMPLES, model.predict(images), strict=True):
        _, cxcywh_rel, class_ids = sample_scene(name)
        middle, half = cxcywh_rel[:, :2], cxcywh_rel[:, 2:] / 2
        expected = np.concatenate([middle - half, middle + half], axis=1) * np.tile(SAMPLES[name][1], 2)
        iou = pairwise_iou(expected, found.xyxy)
        assert len(found) == len(expected), name
        assert (found.class_ids[iou.argmax(axis=1)] == class_ids).all() and iou.max(axis=1).min() > 0.7, name

"""Drawn scenes: labelled rightly, varied, the same for the same seed, and never half there."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.scenes import NAMES, folder, make_scenes, paint_scene
from data.scenes.shapes import CLASSES, SHAPES, TEXTURES
from data.sources import open_data
from utils.errors import InputError

SCENES = [paint_scene(np.random.default_rng((7, number)), (160, 160)) for number in range(60)]


def test_classes_are_every_shape_in_every_texture() -> None:
    assert len(NAMES) == len(set(NAMES)) == len(SHAPES) * len(TEXTURES) >= 24
    assert NAMES[CLASSES.index(("striped", "heart"))] == "striped-heart"


def test_boxes_are_inside_and_not_tiny() -> None:
    boxes = np.concatenate([scene.cxcywh_rel for scene in SCENES])
    assert (boxes[:, :2] - boxes[:, 2:] / 2 > -1e-9).all() and (boxes[:, :2] + boxes[:, 2:] / 2 < 1 + 1e-9).all()
    assert (boxes[:, 2:] * 160 >= 3).all()
    assert boxes[:, 2:].min() > 0.02 and boxes[:, 2:].max() > 0.35


def test_scenes_vary() -> None:
    counts = np.array([len(scene.class_ids) for scene in SCENES])
    assert counts.min() <= 2 and counts.max() >= 8
    assert len(np.unique(np.concatenate([scene.class_ids for scene in SCENES]))) > 28
    assert np.std([scene.image.mean() for scene in SCENES]) > 15


def test_same_seed_same_scene_and_another_another() -> None:
    again = paint_scene(np.random.default_rng((7, 3)), (160, 160))
    np.testing.assert_array_equal(again.image, SCENES[3].image)
    np.testing.assert_array_equal(again.cxcywh_rel, SCENES[3].cxcywh_rel)
    assert not np.array_equal(SCENES[3].image, SCENES[4].image)


def test_a_box_is_around_its_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disc painted white on black: the box is the white."""
    from data.scenes import painter

    monkeypatch.setattr(painter, "background", lambda rng, size_wh: np.zeros((size_wh[1], size_wh[0], 3), np.uint8))
    monkeypatch.setattr(painter, "_photographed", lambda image, rng: image)
    monkeypatch.setattr(painter, "_coloured", lambda rng, t, r, a, wh: np.full((wh[1], wh[0], 3), 255, np.uint8))
    monkeypatch.setattr(painter, "_darkened", lambda image, where, strength: image)
    for seed in range(40):
        scene = paint_scene(np.random.default_rng(seed), (200, 120))
        x, y, w, h = cv2.boundingRect((scene.image[..., 0] > 127).astype(np.uint8))
        low = (
            (scene.cxcywh_rel[:, :2] - scene.cxcywh_rel[:, 2:] / 2).min(axis=0) * (200, 120)
            if len(scene.class_ids)
            else 0
        )
        high = (
            (scene.cxcywh_rel[:, :2] + scene.cxcywh_rel[:, 2:] / 2).max(axis=0) * (200, 120)
            if len(scene.class_ids)
            else 0
        )
        np.testing.assert_allclose(
            [*np.broadcast_to(low, 2), *np.broadcast_to(high, 2)], [x, y, x + w, y + h], atol=1.01
        )


def test_the_folder_is_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_scenes(tmp_path / "deep" / "scenes", 10, seed=1, size=96)
    monkeypatch.chdir(tmp_path)
    data = open_data(path)
    assert data.names == NAMES and len(data.splits["train"]) == 10 and len(data.splits["val"]) == 2
    for split in ("train", "val"):
        for labels in data.annotations(split):
            assert not labels.findings and cv2.imread(str(labels.image)).shape == (96, 96, 3)
    scene = paint_scene(np.random.default_rng((1, 11)), (96, 96))
    np.testing.assert_array_equal(data.read(data.splits["val"][1]).cxcywh_rel, scene.cxcywh_rel)


def test_the_folder_is_made_once(tmp_path: Path) -> None:
    path = make_scenes(tmp_path / "s", 2, size=64)
    before = path.stat().st_mtime_ns
    assert make_scenes(tmp_path / "s", 2, size=64) == path and path.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="count 2 seed 0 size 64, expected version 1 count 3"):
        make_scenes(tmp_path / "s", 3, size=64)


def test_an_interrupted_folder_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "_draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_scenes(tmp_path / "s", 2, size=64)
    assert list(tmp_path.iterdir()) == []


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        make_scenes(tmp_path, 2, size=64)
    assert (tmp_path / "mine.txt").read_text() == "mine"

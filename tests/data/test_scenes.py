"""Generated scenes: exact labels, variety, reproducible by seed, and never incomplete."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.image import read_image
from data.scenes import NAMES, folder, make_scenes, paint_scene, painting
from data.scenes.parts import PARTS, relief
from data.sources import open_data
from utils.errors import InputError

SCENES = [paint_scene(np.random.default_rng((7, number)), (160, 160)) for number in range(60)]


@pytest.mark.parametrize("name", NAMES)
def test_a_part_fills_its_map_and_faces_up(name: str) -> None:
    normal_x, normal_y, light, cover = np.moveaxis(relief(name, 320), 2, 0)
    assert cover.min() == 0 and cover.max() == 1
    assert max(cv2.boundingRect((cover > 0.5).astype(np.uint8))[2:]) > 0.9 * len(cover)
    assert (np.hypot(normal_x, normal_y) <= 1 + 1e-6).all() and light.min() > 0 and light.max() <= 1
    assert len(relief(name, 70)) == 80 and PARTS[name].materials


def test_boxes_are_inside_and_not_tiny() -> None:
    boxes = np.concatenate([scene.cxcywh_rel for scene in SCENES])
    assert (boxes[:, :2] - boxes[:, 2:] / 2 > -1e-9).all() and (boxes[:, :2] + boxes[:, 2:] / 2 < 1 + 1e-9).all()
    assert (boxes[:, 2:] * 160 >= 6).all() and boxes[:, 2:].max() > 0.35


def test_scenes_vary() -> None:
    counts = np.array([len(scene.class_ids) for scene in SCENES])
    assert counts.min() <= 4 and counts.max() >= 8
    assert set(np.concatenate([scene.class_ids for scene in SCENES])) == set(range(len(NAMES)))
    assert np.std([scene.image.mean() for scene in SCENES]) > 15


def test_scenes_depend_on_the_seed() -> None:
    again = paint_scene(np.random.default_rng((7, 3)), (160, 160))
    np.testing.assert_array_equal(again.image, SCENES[3].image)
    np.testing.assert_array_equal(again.cxcywh_rel, SCENES[3].cxcywh_rel)
    assert not np.array_equal(SCENES[3].image, SCENES[4].image)


def test_boxes_are_around_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With white parts without shadow on black, every box touches white on all four sides, and no white is outside boxes."""
    monkeypatch.setattr(painting, "_surface", lambda rng, wh, kind: np.zeros((wh[1], wh[0], 3), np.float32))
    monkeypatch.setattr(painting, "_shadow", lambda cover, light, unit: np.ones_like(cover))
    monkeypatch.setattr(painting, "_shaded", lambda rng, patch, *_: np.ones((*patch.shape[:2], 3), np.float32))
    monkeypatch.setattr(painting, "photographed", lambda image, rng: image)
    for seed in range(10):
        scene = paint_scene(np.random.default_rng(seed), (360, 300))
        white = scene.image[..., 0] > 127
        outside = white.copy()
        low = np.rint((scene.cxcywh_rel[:, :2] - scene.cxcywh_rel[:, 2:] / 2) * (360, 300)).astype(int)
        high = np.rint((scene.cxcywh_rel[:, :2] + scene.cxcywh_rel[:, 2:] / 2) * (360, 300)).astype(int)
        for (left, top), (right, bottom) in zip(low, high, strict=True):
            inside = white[top:bottom, left:right]
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
            outside[top:bottom, left:right] = False
        assert len(low) and not outside.any()


def test_the_folder_is_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_scenes(tmp_path / "deep" / "scenes", 10, seed=1, size=96)
    monkeypatch.chdir(tmp_path)
    data = open_data(path)
    assert data.names == NAMES and len(data.splits["train"]) == 10 and len(data.splits["val"]) == 2
    for split in ("train", "val"):
        for labels in data.annotations(split):
            assert not labels.findings and read_image(labels.image).shape == (96, 96, 3)
    scene = paint_scene(np.random.default_rng((1, 11)), (96, 96))
    np.testing.assert_array_equal(data.read(data.splits["val"][1]).cxcywh_rel, scene.cxcywh_rel)


def test_the_folder_is_made_once(tmp_path: Path) -> None:
    path = make_scenes(tmp_path / "s", 2, size=64)
    before = path.stat().st_mtime_ns
    assert make_scenes(tmp_path / "s", 2, size=64) == path and path.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="count 2 seed 0 size 64, expected version 2 count 3"):
        make_scenes(tmp_path / "s", 3, size=64)


def test_an_interrupted_folder_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "_draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_scenes(tmp_path / "s", 2, size=64)
    assert list(tmp_path.iterdir()) == []


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        make_scenes(tmp_path, 2, size=64)
    assert (tmp_path / "mine.txt").read_text() == "mine"

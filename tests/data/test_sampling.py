"""Sampling of training images by class weights and by aspect ratio."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.augment.base import scale
from data.augment.detection import DetectionAugment
from data.dataset import DetectionDataset, SampleKey
from data.loader import BatchPlan, TrainLoader
from data.sampling import (
    BatchShape,
    ImageSampler,
    MultiScaleShapes,
    RectShapes,
    class_balanced_weights,
    group_by_aspect,
)
from data.sources import open_data
from utils.net_options import AugmentOptions

SIZES = np.array([[100, 100]] * 5 + [[200, 100]] * 4 + [[100, 210]] * 3 + [[1000, 10], [0, 0]])


def test_every_class_is_drawn_as_often_and_empty_images_keep_their_share() -> None:
    image_of = np.array([0, 0, 0, 1, 2, 3])
    class_ids = np.array([7, 7, 9, 7, 7, 7])  # class 7 is in four images, class 9 in one; a fifth image is empty
    weights = class_balanced_weights(5, image_of, class_ids)
    np.testing.assert_allclose(weights, [0.8 / 2 * (1 / 4 + 1), 0.1, 0.1, 0.1, 0.2])
    assert weights.sum() == pytest.approx(1)


def test_without_labels_all_images_have_equal_weight() -> None:
    none = np.zeros(0, np.int64)
    np.testing.assert_allclose(class_balanced_weights(4, none, none), 0.25)


def test_weights_are_followed() -> None:
    sampler, rng = ImageSampler(4, np.array([0.0, 1.0, 3.0, 0.0])), np.random.default_rng(0)
    drawn = np.bincount([sampler(rng, (32, 32)) for _ in range(2000)], minlength=4) / 2000
    np.testing.assert_allclose(drawn, [0, 0.25, 0.75, 0], atol=0.03)


def test_unweighted_sampling_is_unchanged() -> None:
    sampler = ImageSampler(1000)
    first, second = np.random.default_rng(3), np.random.default_rng(3)
    assert [sampler(first, (1, 1)) for _ in range(50)] == [int(second.integers(1000)) for _ in range(50)]


@pytest.mark.parametrize(
    ("least", "shapes", "members"),
    [
        (1, [(64, 128), (128, 128), (128, 64), (128, 32)], [3, 6, 4, 1]),
        (2, [(64, 128), (128, 128), (128, 64)], [3, 6, 5]),
        (4, [(128, 128), (128, 64)], [9, 5]),
        (99, [(128, 128)], [14]),
    ],
)
def test_groups(least: int, shapes: list[tuple[int, int]], members: list[int]) -> None:
    groups = group_by_aspect(SIZES, (128, 128), 32, least)
    assert [tuple(shape) for shape in groups.shapes.tolist()] == shapes
    assert np.bincount(groups.group).tolist() == members


def test_batches_hold_images_of_their_group_only() -> None:
    groups = group_by_aspect(SIZES, (128, 128), 32, 1)
    weights = np.arange(1.0, len(SIZES) + 1)
    sampler, rng = ImageSampler(len(SIZES), weights, groups), np.random.default_rng(0)
    for number, shape in enumerate(groups.shapes.tolist()):
        drawn = {sampler(rng, tuple(shape)) for _ in range(200)}
        assert drawn == set(np.flatnonzero(groups.group == number))
    np.testing.assert_allclose(sampler.shares, np.bincount(groups.group, weights) / weights.sum())


def test_shapes_are_drawn_as_often_as_their_images() -> None:
    groups = group_by_aspect(SIZES, (128, 128), 32, 1)
    shapes = RectShapes(groups.shapes, ImageSampler(14, None, groups).shares, 4, seed=1)
    assert shapes.at(0) == shapes.largest == BatchShape(128, 128, 4)
    found = [shapes.at(iteration) for iteration in range(1, 2001)]
    for shape, share in zip(groups.shapes.tolist(), (3, 6, 4, 1), strict=True):
        assert found.count(BatchShape(shape[0], shape[1], 4)) / 2000 == pytest.approx(share / 14, abs=0.03)
    assert shapes.at(77) == found[76]


def test_a_batch_of_tall_images_is_tall(tmp_path: Path) -> None:
    for number in range(6):
        wide = number < 3
        cv2.imwrite(
            str(tmp_path / f"{number}.png"), np.full((40, 80, 3) if wide else (80, 40, 3), 200 * wide, np.uint8)
        )
        (tmp_path / f"{number}.txt").write_text("0 .5 .5 .4 .4\n")
    data = open_data(tmp_path)
    groups = group_by_aspect(np.array([[80, 40]] * 3 + [[40, 80]] * 3), (64, 64), 32, 2)
    sampler = ImageSampler(6, None, groups)
    augment = DetectionAugment(options=AugmentOptions(), jitter=0.0, resize=1.0, classes=1, max_boxes=9)
    dataset = DetectionDataset(images=data.splits["all"], read=data.read, augment=augment, seed=0, sampler=sampler)
    shapes = RectShapes(groups.shapes, sampler.shares, 4, seed=0)
    loader = iter(TrainLoader(dataset, BatchPlan(shapes=shapes, subdivisions=2)))
    seen = set()
    for _ in range(20):
        batch = next(loader)
        assert batch.size_wh == shapes.at(batch.iteration)[:2]
        assert (batch.images.numpy() > 100).all() == (batch.size_wh == (64, 32))
        seen.add(batch.size_wh)
    assert seen == {(64, 32), (32, 64)}
    assert dataset.files(SampleKey(1, 0, 64, 32))[0].stem in "012"


def _transcribed_shape(s: MultiScaleShapes, factor: float, full: bool) -> BatchShape:
    """The rule for sizes in train_detector, line by line."""
    coefficient = 1.4 if s.random == 1 else s.random
    dims = [int(int(factor * side / s.resize_step + 1 + 0.5) * s.resize_step) for side in (s.width, s.height)]
    if factor < 1 and (dims[0] > s.width or dims[1] > s.height):
        dims = [s.width, s.height]
    most = [int(int(coefficient * side / s.resize_step + 1 + 0.5) * s.resize_step) for side in (s.width, s.height)]
    if full:
        dims = most
    count = (s.mini_batch * most[0] * most[1]) // (dims[0] * dims[1])
    if int(count * 0.8) > s.mini_batch:
        count = int(count * 0.8)
    return BatchShape(dims[0], dims[1], count if s.dynamic_minibatch else s.mini_batch)


@pytest.mark.parametrize("random", [1.0, 1.2, 2.0])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("size", [(416, 416), (640, 352)])
def test_multi_scale_follows_train_detector(random: float, dynamic: bool, size: tuple[int, int]) -> None:
    schedule = MultiScaleShapes(
        width=size[0], height=size[1], mini_batch=8, random=random, dynamic_minibatch=dynamic, max_batches=6000, seed=3
    )
    coefficient = 1.4 if random == 1 else random
    for iteration in range(0, 5900, 10):
        factor = scale(np.random.default_rng((3, iteration)), coefficient)
        assert schedule.at(iteration) == _transcribed_shape(schedule, factor, iteration == 0)
        assert schedule.at(iteration + 9) == schedule.at(iteration)
    assert schedule.at(5) == schedule.at(5910) == schedule.at(5999) == schedule.largest
    assert len({schedule.at(iteration) for iteration in range(0, 5900, 10)}) > 4


def test_without_random_the_size_is_the_cfgs() -> None:
    schedule = MultiScaleShapes(width=416, height=320, mini_batch=4, max_batches=100)
    assert {schedule.at(i) for i in range(200)} == {schedule.largest} == {BatchShape(416, 320, 4)}

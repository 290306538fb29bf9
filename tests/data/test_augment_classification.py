"""The augmentation for classifiers, compared with the original's formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from data.augment.base import Sample
from data.augment.classification import ClassificationAugment, View, distort_exact, render_view
from data.augment.colour import Distortion
from data.dataset import ClassHierarchy, class_target
from utils.detections import MASKED_TARGET
from utils.net_options import AugmentOptions


def _augment(**options: object) -> ClassificationAugment:
    return ClassificationAugment(options=AugmentOptions(**options), min_crop=64, max_crop=128)  # type: ignore[arg-type]


def test_view_follows_random_augment_image() -> None:
    rng = np.random.default_rng(0)
    augment = _augment(angle=10.0, aspect=0.75)
    views = np.array([augment.draw_view(rng, (200, 100), 64) for _ in range(4000)])
    angle, scale, dx, dy, aspect = views.T
    assert stats.kstest(np.rad2deg(angle), stats.uniform(-10, 20).cdf).pvalue > 1e-4
    assert aspect.min() >= 0.75 and aspect.max() <= 1 / 0.75
    assert (aspect <= 1).mean() == pytest.approx(0.5, abs=0.03)
    shorter = np.rint(scale * np.minimum(100, (200 * aspect).astype(int)))
    assert stats.chisquare(np.bincount(shorter.astype(int), minlength=129)[64:]).pvalue > 1e-4
    reach = np.maximum(0, (100 * scale - 64) / 2)
    assert (np.abs(dy) <= reach + 1e-9).all() and (
        np.abs(dx) <= np.maximum(0, (200 * scale / aspect - 64) / 2) + 1e-9
    ).all()
    assert stats.kstest((dy / np.maximum(reach, 1e-9))[reach > 1], stats.uniform(-1, 2).cdf).pvalue > 1e-4


def _rotate_crop(image: np.ndarray, view: View, side: int) -> np.ndarray:
    """rotate_crop_image and bilinear_interpolate in NumPy, pixel by pixel."""
    y, x = np.mgrid[:side, :side].astype(float)
    u = (x - side / 2) / view.scale * view.aspect + view.dx / view.scale * view.aspect
    v = (y - side / 2) / view.scale + view.dy / view.scale
    rx = np.cos(view.angle) * u - np.sin(view.angle) * v + image.shape[1] / 2
    ry = np.sin(view.angle) * u + np.cos(view.angle) * v + image.shape[0] / 2
    padded = np.pad(image.astype(float), ((1, 1), (1, 1), (0, 0)))
    ix, iy = np.floor(rx).astype(int), np.floor(ry).astype(int)
    fx, fy = (rx - ix)[..., None], (ry - iy)[..., None]

    def at(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        return padded[np.clip(row + 1, 0, image.shape[0] + 1), np.clip(column + 1, 0, image.shape[1] + 1)]

    top = (1 - fx) * at(iy, ix) + fx * at(iy, ix + 1)
    return (1 - fy) * top + fy * ((1 - fx) * at(iy + 1, ix) + fx * at(iy + 1, ix + 1))


@pytest.mark.parametrize(
    "view", [View(0, 1.3, 5, -3, 1.0), View(0.4, 0.6, 0, 0, 1.3), View(-2.0, 2.2, 20, 10, 0.7), View(0.1, 0.3, 0, 0, 1)]
)
def test_viewed_is_rotate_crop_image(view: View) -> None:
    smooth = np.linspace(0, 1, 80)[:, None, None] * np.linspace(50, 250, 120)[None, :, None] * np.ones(3)
    image = smooth.astype(np.uint8)
    difference = np.abs(render_view(image, view, 64).astype(float) - _rotate_crop(image, view, 64))
    assert np.quantile(difference, 0.99) <= 1.5 and difference.mean() < 0.6


@pytest.mark.parametrize(
    ("rgb", "distortion", "expected"),
    [
        ((200, 40, 40), Distortion(hue=1 / 3, saturation=1, exposure=1), (40, 200, 40)),
        (
            (200, 40, 40),
            Distortion(hue=-1 / 3, saturation=1, exposure=1),
            (40, 40, 200),
        ),  # wraps around the colour circle
        ((100, 50, 50), Distortion(hue=0, saturation=1, exposure=2), (200, 100, 100)),
        ((100, 50, 50), Distortion(hue=0, saturation=4, exposure=1), (100, 0, 0)),
        ((90, 90, 90), Distortion(hue=0.3, saturation=2, exposure=0.5), (45, 45, 45)),
    ],
)
def test_distort_by_hand(rgb: tuple, distortion: Distortion, expected: tuple) -> None:
    out = distort_exact(np.full((2, 2, 3), rgb, np.uint8), distortion)
    np.testing.assert_allclose(out[0, 0], expected, atol=1)


@pytest.mark.parametrize("mix", [{"mixup": 1}, {"cutmix": True}, {"mosaic": True}, {"cutmix": True, "mosaic": True}])
def test_mixed_targets_are_the_shares_of_the_images(mix: dict[str, object]) -> None:
    """Images of one grey level per class: each class's share of the sample is its target."""
    levels = np.array([0, 60, 120, 240])

    def pick(rng: np.random.Generator) -> Sample:
        index = int(rng.integers(4))
        return Sample(np.full((90, 90, 3), levels[index], np.uint8), np.eye(4, dtype=np.float32)[index])

    rng, mixed = np.random.default_rng(1), 0
    augment = ClassificationAugment(options=AugmentOptions(flip=True, **mix), min_crop=80, max_crop=90)  # type: ignore[arg-type]
    for _ in range(60):
        image, target = augment(pick, rng, (60, 60))
        assert target.sum() == pytest.approx(1, abs=1e-5)
        assert image.astype(float).mean() == pytest.approx(float(levels @ target), abs=1.5)
        mixed += target.max() < 0.999
    assert 8 < mixed < 45


def test_targets_are_substrings_of_the_path() -> None:
    labels = ("cat", "dog", "bird")
    np.testing.assert_allclose(class_target("train/dog/1.jpg", labels, 0.1), [0.05, 0.9, 0.05])
    np.testing.assert_allclose(class_target("dog_and_cat.jpg", labels, 0), [1, 1, 0])


def test_hierarchy_fills_parents_and_leaves_other_groups_out() -> None:
    tree = ClassHierarchy(parents=(-1, -1, 0, 0, 1, 1), group_sizes=(2, 2, 2))
    target = tree.masked(tree.with_ancestors(np.array([0, 0, 0, 1, 0, 0], np.float32)))
    np.testing.assert_array_equal(target, [1, 0, 0, 1, MASKED_TARGET, MASKED_TARGET])

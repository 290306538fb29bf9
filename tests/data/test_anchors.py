"""Anchors: planted clusters are found, and the heads share them by stride."""

from __future__ import annotations

import numpy as np
import pytest

from data.anchors import anchor_fit, anchor_masks, compute_anchors, shape_iou
from utils.errors import InputError

CENTRES = np.array([[12, 15], [40, 22], [60, 90], [200, 180]], float)


def _boxes(seed: int = 0, each: int = 200) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (CENTRES[:, None] * rng.uniform(0.93, 1.07, (len(CENTRES), each, 2))).reshape(-1, 2)


def test_planted_clusters_are_found_in_order_of_area() -> None:
    anchors = compute_anchors(_boxes(), 4)
    np.testing.assert_allclose(anchors, CENTRES, rtol=0.02)


def test_fit_improves_with_more_anchors_and_beats_borrowed_ones() -> None:
    boxes = _boxes()
    fits = [anchor_fit(boxes, compute_anchors(boxes, count)).mean_iou for count in (1, 2, 4, 8)]
    assert fits == sorted(fits) and fits[2] > 0.9
    borrowed = anchor_fit(boxes, [[10, 14], [23, 27], [37, 58], [81, 82]])
    assert borrowed.mean_iou < fits[2]


def test_same_seed_same_anchors() -> None:
    np.testing.assert_array_equal(compute_anchors(_boxes(), 6, seed=3), compute_anchors(_boxes(), 6, seed=3))


def test_shape_iou_by_hand() -> None:
    iou = shape_iou(np.array([[2.0, 4.0]]), np.array([[2.0, 4.0], [4.0, 2.0], [1.0, 4.0]]))
    np.testing.assert_allclose(iou, [[1, 4 / 12, 0.5]])


def test_recall_counts_sides_within_a_factor_of_four() -> None:
    assert anchor_fit(np.array([[10, 10], [39, 10], [41, 10], [10, 2.4]]), np.array([[10.0, 10.0]])).recall == 0.5


def test_boxes_without_size_do_not_count() -> None:
    boxes = np.concatenate([_boxes(), [[0, 5], [5, 0]]])
    np.testing.assert_array_equal(compute_anchors(boxes, 4), compute_anchors(_boxes(), 4))


@pytest.mark.parametrize("boxes", [[], [[0, 0]], [[5, 5]] * 10])
def test_too_few_boxes(boxes: list[list[float]]) -> None:
    with pytest.raises(InputError, match="anchors"):
        compute_anchors(boxes, 3)


@pytest.mark.parametrize(
    ("count", "strides", "masks"),
    [
        (9, (32, 16, 8), ((6, 7, 8), (3, 4, 5), (0, 1, 2))),
        (9, (8, 16, 32), ((0, 1, 2), (3, 4, 5), (6, 7, 8))),
        (6, (32, 16), ((3, 4, 5), (0, 1, 2))),
        (5, (32,), ((0, 1, 2, 3, 4),)),
        (7, (32, 16, 8), ((5, 6), (3, 4), (0, 1, 2))),
    ],
)
def test_masks(count: int, strides: tuple[int, ...], masks: tuple[tuple[int, ...], ...]) -> None:
    assert anchor_masks(count, strides) == masks


def test_fewer_anchors_than_heads() -> None:
    with pytest.raises(InputError, match="2 anchors for 3 heads"):
        anchor_masks(2, (32, 16, 8))

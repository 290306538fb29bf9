"""Boxes compared with the original's fill_truth_detection and blend_truth_mosaic, called with the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from data.augment.geometry import CropWindow, crop_boxes, pad_boxes
from data.augment.mixing import Placement, mosaic_boxes
from tests.paths import REFERENCE

RECORDED = np.load(REFERENCE / "augment_truth.npz")


def _rows(name: str, case: int) -> np.ndarray:
    table = RECORDED[name]
    return table[table[:, 0] == case][:, 1:].astype(np.float32)


def _sorted(truth: np.ndarray) -> np.ndarray:
    return truth[np.lexsort(np.round(truth, 3).T)]


@pytest.mark.parametrize("case", range(len(RECORDED["fill"])))
def test_windowed_is_fill_truth_detection(case: int) -> None:
    _, width, height, left, top, window_width, window_height, flip, net_width, net_height, *_ = RECORDED["fill"][case]
    window = CropWindow(left=left, top=top, width=window_width, height=window_height, flip=bool(flip))
    rng = np.random.default_rng(case)
    ours = crop_boxes(
        _rows("fill_in", case), window, (width, height), (net_width, net_height), classes=5, max_boxes=20, rng=rng
    )
    expected = _rows("fill_out", case)
    assert ours.shape == expected.shape
    np.testing.assert_allclose(_sorted(ours), _sorted(expected), atol=2e-6)


def test_the_recorded_cases_drop_and_keep_boxes() -> None:
    assert 0 < len(RECORDED["fill_out"]) < len(RECORDED["fill_in"])
    assert 0 < len(RECORDED["mosaic_out"]) < len(RECORDED["mosaic_in"])


@pytest.mark.parametrize("case", range(len(RECORDED["mosaic"])))
def test_placed_is_blend_truth_mosaic(case: int) -> None:
    _, width, height, cut_x, cut_y, quadrant, bound, left, right, top, bottom, before, most = RECORDED["mosaic"][case]
    shift_x = cut_x - left if quadrant & 1 else -(width - cut_x - right)
    shift_y = cut_y - top if quadrant & 2 else -(height - cut_y - bottom)
    placement = Placement(quadrant=quadrant, net_wh=(width, height), cut_xy=(cut_x, cut_y), shift_xy=(shift_x, shift_y))
    ours = mosaic_boxes(_rows("mosaic_in", case)[: most - before], placement, bound=bool(bound))
    np.testing.assert_allclose(ours, _rows("mosaic_out", case), atol=2e-6)


def test_the_limit_counts_boxes_before_they_are_dropped() -> None:
    truth = np.tile(np.array([0.5, 0.5, 0.2, 0.2, 0], np.float32), (40, 1))
    truth[::2, 4] = 7  # not a valid class
    window = CropWindow(left=0, top=0, width=100, height=100, flip=False)
    counts = [
        len(crop_boxes(truth, window, (100, 100), (32, 32), classes=5, max_boxes=20, rng=np.random.default_rng(seed)))
        for seed in range(20)
    ]
    assert max(counts) < 20
    assert 8 < np.mean(counts) < 12


def test_padding_keeps_the_first() -> None:
    boxes = np.full((3, 5), 0.1, np.float32)
    rows = pad_boxes(boxes, 6)
    assert rows.shape == (6, 5) and not rows[3:].any() and rows[:3].all()
    assert pad_boxes(boxes, 2).shape == (2, 5)

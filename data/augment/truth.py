"""What becomes of the boxes (src/data.c of the original).

`truth` is float32 (n, 5): centre x, centre y, width, height, all relative to the image, and class id.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data.augment.crop import Window

TruthRows = NDArray[np.float32]


def pair(values: tuple[int, int]) -> NDArray[np.float32]:
    """Two numbers for arithmetic with columns of boxes."""
    return np.array(values, np.float32)


def windowed(
    truth: TruthRows,
    window: Window,
    size_wh: tuple[int, int],
    net_wh: tuple[int, int],
    *,
    classes: int,
    most: int,
    rng: np.random.Generator,
) -> TruthRows:
    """Boxes of an image of `size_wh` as they stand in its window, in random order.

    They are clipped to the window. Of the first `most` of the shuffled boxes those are dropped that lay outside the
    image or at (0, 0), whose class is not one of `classes`, or that are less than a pixel wide or high at `net_wh`.
    The limit counts before the dropping, as in the original (fill_truth_detection, correct_boxes).
    """
    truth = truth[rng.permutation(len(truth))]
    kept = _on_image(truth)[:most]
    moved = _moved(truth, window, size_wh)[:most]
    centre, size = moved[:, :2], moved[:, 2:4]
    kept &= (moved[:, 4] >= 0) & (moved[:, 4] < classes)
    kept &= (size >= 1 / pair(net_wh)).all(axis=1)
    kept &= ((centre > 0) & (centre <= 1)).all(axis=1)
    return moved[kept]


def _on_image(truth: TruthRows) -> NDArray[np.bool_]:
    centre, half = truth[:, :2], truth[:, 2:4] / 2
    outside = ((centre + half < 0) | (centre - half > 1)).any(axis=1)
    return ~(outside | (centre == 0).all(axis=1))


def _moved(truth: TruthRows, window: Window, size_wh: tuple[int, int]) -> TruthRows:
    size = pair(size_wh)
    scale = pair((window.width, window.height)) / size
    offset = pair((window.left, window.top)) / size / scale
    low = (truth[:, :2] - truth[:, 2:4] / 2) / scale - offset
    high = (truth[:, :2] + truth[:, 2:4] / 2) / scale - offset
    if window.flip:
        low[:, 0], high[:, 0] = 1 - high[:, 0], 1 - low[:, 0]
    low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
    return np.concatenate([(low + high) / 2, high - low, truth[:, 4:5]], axis=1).astype(np.float32)


def joined(first: TruthRows, second: TruthRows, most: int) -> TruthRows:
    """The boxes of two blended images, no more than `most` (blend_truth)."""
    return np.concatenate([first, second])[:most]


def padded(truth: TruthRows, most: int) -> TruthRows:
    """(most, 5) with zero rows after the last box, which is how a loss layer knows where the list ends."""
    rows = np.zeros((most, 5), np.float32)
    rows[: len(truth)] = truth[:most]
    return rows

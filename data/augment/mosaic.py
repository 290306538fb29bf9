"""Four images in one (load_data_detection and blend_truth_mosaic of the original's src/data.c)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data.augment import draws
from data.augment.crop import Margins
from data.augment.truth import TruthRows, pair

QUADRANTS = (0, 1, 2, 3)
"""Top left, top right, bottom left, bottom right: bit 0 is right, bit 1 is bottom."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How one image of the network's size becomes a quadrant of the mosaic; all in pixels.

    cut_xy: where the four meet. shift_xy: by how much the image moves; the boxes move with it.
    """

    quadrant: int
    net_wh: tuple[int, int]
    cut_xy: tuple[int, int]
    shift_xy: tuple[int, int]

    @property
    def target(self) -> tuple[slice, slice]:
        """Rows and columns of the quadrant in the mosaic."""
        (width, height), (cut_x, cut_y) = self.net_wh, self.cut_xy
        columns = slice(cut_x, width) if self.quadrant & 1 else slice(0, cut_x)
        rows = slice(cut_y, height) if self.quadrant & 2 else slice(0, cut_y)
        return rows, columns

    @property
    def source(self) -> tuple[slice, slice]:
        """Rows and columns of the part of the image that is shown."""
        rows, columns = self.target
        dx, dy = self.shift_xy
        return slice(rows.start - dy, rows.stop - dy), slice(columns.start - dx, columns.stop - dx)


def draw_cut(rng: np.random.Generator, net_wh: tuple[int, int]) -> tuple[int, int]:
    """Where the four images meet: each coordinate uniform on the whole numbers of the middle 60 %."""
    limits = [(int(np.float32(side) * np.float32(0.2)), int(np.float32(side) * np.float32(0.8))) for side in net_wh]
    return draws.whole(rng, *limits[0]), draws.whole(rng, *limits[1])


def to_corner(margins: Margins, quadrant: int, *, flip: bool) -> Margins:
    """All margin of each axis moved to one side, so that most of the image is seen in its quadrant."""
    horizontal, vertical = margins.left + margins.right, margins.top + margins.bottom
    to_left = bool(quadrant & 1) != flip
    margins = replace(margins, left=horizontal if to_left else 0, right=0 if to_left else horizontal)
    to_top = bool(quadrant & 2)
    return replace(margins, top=vertical if to_top else 0, bottom=0 if to_top else vertical)


def place(
    margins: Margins,
    quadrant: int,
    *,
    flip: bool,
    size_wh: tuple[int, int],
    net_wh: tuple[int, int],
    cut_xy: tuple[int, int],
) -> Placement:
    """Where an image of `size_wh`, cut by `margins` and brought to `net_wh`, goes.

    Its corner meets the cut, except that added margin (the mean colour) is pushed out of sight as far as it goes.
    """
    left, right = (margins.right, margins.left) if flip else (margins.left, margins.right)
    dx = _shift(left, right, size_wh[0], net_wh[0], cut_xy[0], far=bool(quadrant & 1))
    dy = _shift(margins.top, margins.bottom, size_wh[1], net_wh[1], cut_xy[1], far=bool(quadrant & 2))
    return Placement(quadrant=quadrant, net_wh=net_wh, cut_xy=cut_xy, shift_xy=(dx, dy))


def _shift(before: int, after: int, length: int, net_length: int, cut: int, *, far: bool) -> int:
    if far:
        return cut - min(cut, max(0, -before) * net_length // length)
    return -(net_length - cut - min(net_length - cut, max(0, -after) * net_length // length))


def placed(truth: TruthRows, placement: Placement, *, bound: bool) -> TruthRows:
    """Boxes of an image in the mosaic: cut at the quadrant (`bound`) or at the border; what no longer fits is dropped.

    Kept are boxes inside the mosaic, larger than one pixel and smaller than all of it. Without `bound` these include
    boxes of which another quadrant hides a part or all, as in the original.
    """
    size = pair(placement.net_wh)
    centre = truth[:, :2] + pair(placement.shift_xy) / size
    side = truth[:, 2:4].copy()
    low, high = _edges(centre, side, size)
    if bound:
        rows, columns = placement.target
        low = np.maximum(low, (columns.start, rows.start))
        high = np.minimum(high, (columns.stop, rows.stop))
        centre = (low + high).astype(np.float32) / 2 / size
        side = (high - low).astype(np.float32) / size
    else:
        before, after = np.minimum(low, 0) / size, np.maximum(high - size, 0) / size
        centre = (centre - before / 2 - after / 2).astype(np.float32)
        side = (side + before - after).astype(np.float32)
        low, high = _edges(centre, side, size)
    kept = (low >= 0).all(axis=1) & (high <= size).all(axis=1) & (side > 1 / size).all(axis=1)
    kept &= ((side < 1) & (centre > 0) & (centre < 1)).all(axis=1)
    return np.concatenate([centre, side, truth[:, 4:5]], axis=1).astype(np.float32)[kept]


def _edges(
    centre: NDArray[np.float32], side: NDArray[np.float32], size: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Left-top and right-bottom in pixels, truncated toward zero as the original's ints are."""
    return ((centre - side / 2) * size).astype(np.int64), ((centre + side / 2) * size).astype(np.int64)

"""MixUp, CutMix and mosaic: selection by the keys of [net], and the original's mosaic of four images (src/data.c)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.augment.base import integer
from data.augment.geometry import BoxRows, Margins
from utils.errors import InputError
from utils.net_options import AugmentOptions


class Mixing(enum.IntEnum):
    """Ways to combine several images; the values are those of the `mixup` key."""

    NONE = 0
    MIXUP = 1
    CUTMIX = 2
    MOSAIC = 3
    CUTMIX_OR_MOSAIC = 4


def mixing_of(options: AugmentOptions) -> Mixing:
    """Return the kind of mixing; `cutmix` and `mosaic` override `mixup` (parse_net_options, src/parser.c). Raises InputError."""
    if options.cutmix or options.mosaic:
        if options.cutmix and options.mosaic:
            return Mixing.CUTMIX_OR_MOSAIC
        return Mixing.CUTMIX if options.cutmix else Mixing.MOSAIC
    if options.mixup not in set(Mixing):
        raise InputError(f"[net] mixup={options.mixup} is out of range, expected 0 to {max(Mixing):d}")
    return Mixing(options.mixup)


QUADRANTS = (0, 1, 2, 3)
"""Top left, top right, bottom left, bottom right: bit 0 is right, bit 1 is bottom."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Placement of one image of the network's size in a quadrant of the mosaic; all in pixels.

    cut_xy: where the four quadrants meet. shift_xy: translation of the image and its boxes.
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
        """Rows and columns of the visible part of the image."""
        rows, columns = self.target
        dx, dy = self.shift_xy
        return slice(rows.start - dy, rows.stop - dy), slice(columns.start - dx, columns.stop - dx)


def draw_mosaic_cut(rng: np.random.Generator, net_wh: tuple[int, int]) -> tuple[int, int]:
    """Draw the point where the four quadrants meet: each coordinate a uniform integer in the middle 60 % of its side."""
    limits = [(int(np.float32(side) * np.float32(0.2)), int(np.float32(side) * np.float32(0.8))) for side in net_wh]
    return integer(rng, *limits[0]), integer(rng, *limits[1])


def margins_to_corner(margins: Margins, quadrant: int, *, flip: bool) -> Margins:
    """Move the margins of each axis to one side, so that the quadrant shows as much of the image as possible."""
    horizontal, vertical = margins.left + margins.right, margins.top + margins.bottom
    to_left, to_top = bool(quadrant & 1) != flip, bool(quadrant & 2)
    left, top = horizontal if to_left else 0, vertical if to_top else 0
    return Margins(left=left, right=horizontal - left, top=top, bottom=vertical - top)


def quadrant_placement(
    margins: Margins,
    quadrant: int,
    *,
    flip: bool,
    size_wh: tuple[int, int],
    net_wh: tuple[int, int],
    cut_xy: tuple[int, int],
) -> Placement:
    """Place an image of `size_wh` that was cropped by `margins` and resized to `net_wh`.

    Its corner touches the cut, except that added margins (the mean colour) are shifted out of the quadrant if possible.
    """
    left, right = (margins.right, margins.left) if flip else (margins.left, margins.right)
    dx = _shift(left, right, size_wh[0], net_wh[0], cut_xy[0], far=bool(quadrant & 1))
    dy = _shift(margins.top, margins.bottom, size_wh[1], net_wh[1], cut_xy[1], far=bool(quadrant & 2))
    return Placement(quadrant=quadrant, net_wh=net_wh, cut_xy=cut_xy, shift_xy=(dx, dy))


def _shift(before: int, after: int, length: int, net_length: int, cut: int, *, far: bool) -> int:
    if far:
        return cut - min(cut, max(0, -before) * net_length // length)
    return -(net_length - cut - min(net_length - cut, max(0, -after) * net_length // length))


def mosaic_boxes(boxes: BoxRows, placement: Placement, *, bound: bool) -> BoxRows:
    """Move the boxes of an image into the mosaic, clipped to its quadrant (`bound`) or the mosaic (blend_truth_mosaic).

    Boxes that are outside the mosaic, at most one pixel wide or high, or as large as the mosaic are dropped. Without
    `bound`, a box is kept even if another quadrant hides it, as in the original.
    """
    size = np.array(placement.net_wh, np.float32)
    centre = boxes[:, :2] + np.array(placement.shift_xy, np.float32) / size
    side = boxes[:, 2:4].copy()
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
    return np.concatenate([centre, side, boxes[:, 4:5]], axis=1).astype(np.float32)[kept]


def _edges(
    centre: NDArray[np.float32], side: NDArray[np.float32], size: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return left-top and right-bottom in pixels, truncated toward zero like the original's ints."""
    return ((centre - side / 2) * size).astype(np.int64), ((centre + side / 2) * size).astype(np.int64)

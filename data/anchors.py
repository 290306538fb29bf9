"""Anchors for a data set: k-means on the sizes of its boxes (calc_anchors in the original's src/detector.c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.errors import InputError

_ROUNDS = 1000
_RESTARTS = 10
_SIDE_RATIO = 4.0


@dataclass(frozen=True, kw_only=True)
class AnchorFit:
    """Quality of anchors for a set of boxes.

    mean_iou: mean over the boxes of the IoU with the best anchor, both at the same centre ("avg IoU" of the original).
    recall: best possible recall, the fraction of boxes with an anchor within a factor of 4 in both width and height.
    """

    mean_iou: float
    recall: float

    def __str__(self) -> str:
        return f"mean IoU {self.mean_iou:.2%}, best possible recall {self.recall:.2%}"


def shape_iou(sizes_wh: NDArray[np.float64], anchors_wh: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the IoU (n, k) of boxes (n, 2) with anchors (k, 2) at the same centre."""
    common = np.minimum(sizes_wh[:, None], anchors_wh[None]).prod(axis=2)
    return common / (sizes_wh.prod(axis=1)[:, None] + anchors_wh.prod(axis=1)[None] - common)


def anchor_fit(sizes_wh: ArrayLike, anchors_wh: ArrayLike) -> AnchorFit:
    """Rate anchors (k, 2) for boxes (n, 2), both in pixels of the network's input. Raises InputError without boxes."""
    sizes, anchors = usable_sizes(sizes_wh), np.asarray(anchors_wh, np.float64).reshape(-1, 2)
    ratio = sizes[:, None] / anchors[None]
    worst = np.maximum(ratio, 1 / ratio).max(axis=2).min(axis=1)
    return AnchorFit(
        mean_iou=float(shape_iou(sizes, anchors).max(axis=1).mean()), recall=float((worst < _SIDE_RATIO).mean())
    )


def usable_sizes(sizes_wh: ArrayLike) -> NDArray[np.float64]:
    """Return the boxes with finite positive sides. Raises InputError if there are none."""
    sizes = np.asarray(sizes_wh, np.float64).reshape(-1, 2)
    sizes = sizes[(np.isfinite(sizes) & (sizes > 0)).all(axis=1)]
    if not len(sizes):
        raise InputError("no boxes to compute anchors from")
    return sizes


def compute_anchors(sizes_wh: ArrayLike, count: int, *, seed: int = 0) -> NDArray[np.float64]:
    """Compute anchors (count, 2) for boxes (n, 2), both in pixels of the network's input, smallest area first.

    k-means with distance 1 - IoU and mean centres, as in the original. The original starts once from random boxes; this
    starts several times by k-means++ and keeps the best mean IoU.
    Raises InputError if there are fewer distinct boxes than anchors.
    """
    sizes = usable_sizes(sizes_wh)
    different = len(np.unique(sizes, axis=0))
    if not 1 <= count <= different:
        raise InputError(f"cannot compute {count} anchors from {different} distinct box sizes")
    rng = np.random.default_rng(seed)
    tries = [_kmeans(sizes, _spread_start(sizes, count, rng)) for _ in range(_RESTARTS)]
    best = max(tries, key=lambda centres: shape_iou(sizes, centres).max(axis=1).mean())
    return best[np.argsort(best.prod(axis=1), kind="stable")]


def _spread_start(sizes: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Choose initial centres by k-means++ (Arthur and Vassilvitskii, 2007)."""
    chosen = sizes[rng.integers(len(sizes), size=1)]
    while len(chosen) < count:
        distance = (1 - shape_iou(sizes, chosen).max(axis=1)) ** 2
        distance[distance < 1e-15] = 0
        chosen = np.concatenate([chosen, sizes[rng.choice(len(sizes), size=1, p=distance / distance.sum())]])
    return chosen


def _kmeans(sizes: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    nearest = np.full(len(sizes), -1)
    for _ in range(_ROUNDS):
        previous, nearest = nearest, shape_iou(sizes, centres).argmax(axis=1)
        if (nearest == previous).all():
            break
        members = np.bincount(nearest, minlength=len(centres))[:, None]
        sums = np.stack([np.bincount(nearest, sizes[:, axis], len(centres)) for axis in (0, 1)], axis=1)
        centres = np.where(members > 0, sums / np.maximum(members, 1), centres)
    return centres


def anchor_masks(count: int, strides: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Distribute the indices of `count` anchors, sorted by area, over heads: the finest gets the smallest anchors.

    Every head gets the same number; the finer heads take the remainder.
    Raises InputError if there are fewer anchors than heads.
    """
    if count < len(strides):
        raise InputError(f"{count} anchors for {len(strides)} heads, expected at least one for each")
    parts = np.array_split(np.arange(count), len(strides))
    order = np.argsort(strides, kind="stable")
    masks: list[tuple[int, ...]] = [()] * len(strides)
    for head, part in zip(order, parts, strict=True):
        masks[head] = tuple(part.tolist())
    return tuple(masks)

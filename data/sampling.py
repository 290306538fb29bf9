"""Which images samples are made of: any, as the original draws them, by rarity of their classes, or by their proportions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.multiscale import BatchShape


def rarity(images: int, image_of: NDArray[np.int64], class_ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Chance of each image when first a class is drawn, then an image with it; (images,), sum 1.

    image_of, class_ids: (labels,), the image and the class of each. Images without labels keep their share of the data
    set. Source: class-aware sampling, Shen, Lin, Huang, Relay Backpropagation, ECCV 2016.
    """
    pairs = np.unique(np.column_stack([image_of, class_ids]), axis=0)
    _, place, holders = np.unique(pairs[:, 1], return_inverse=True, return_counts=True)
    weights = np.zeros(images)
    np.add.at(weights, pairs[:, 0], 1 / holders[place.reshape(-1)])
    empty = weights == 0
    labelled = images - int(empty.sum())
    return np.where(empty, 1 / images, weights * labelled / images / max(len(holders), 1))


@dataclass(frozen=True, eq=False)
class Rectangles:
    """Images in groups of similar proportions. shapes: int (groups, 2), the network's input for each; group: int (images,)."""

    shapes: NDArray[np.int64]
    group: NDArray[np.int64]


def rectangles(sizes_wh: NDArray[np.int64], net_wh: tuple[int, int], step: int, least: int) -> Rectangles:
    """Groups of at least `least` images (if there are as many), whose inputs are multiples of `step` pixels.

    sizes_wh: (images, 2), zero where unknown. The longer side of an input is that of `net_wh`, the other one follows from
    the middle image of the group.
    """
    ratios = np.where(sizes_wh.min(axis=1) > 0, sizes_wh[:, 0] / np.maximum(sizes_wh[:, 1], 1), net_wh[0] / net_wh[1])
    order = np.argsort(ratios, kind="stable")
    sorted_shapes = _shapes(ratios[order], max(net_wh), step)
    starts = [0]
    for start in np.flatnonzero((np.diff(sorted_shapes, axis=0) != 0).any(axis=1)) + 1:
        if start - starts[-1] >= least:
            starts.append(int(start))
    if len(starts) > 1 and len(order) - starts[-1] < least:
        starts.pop()
    ends = [*starts[1:], len(order)]
    group = np.empty(len(order), np.int64)
    group[order] = np.repeat(np.arange(len(starts)), np.diff([*starts, len(order)]))
    middles = [(start + end - 1) // 2 for start, end in zip(starts, ends, strict=True)]
    return Rectangles(sorted_shapes[middles], group)


def _shapes(ratios: NDArray[np.float64], longest: int, step: int) -> NDArray[np.int64]:
    sides = np.column_stack([np.minimum(ratios, 1), np.minimum(1 / ratios, 1)]) * longest
    return (np.maximum(np.rint(sides / step), 1) * step).astype(np.int64)


class Picker:
    """Draws an image's number. weights: (count,), chances, default all alike. rectangles: those of the batch's shape only."""

    def __init__(
        self, count: int, weights: NDArray[np.float64] | None = None, groups: Rectangles | None = None
    ) -> None:
        self.count, self._plain = count, weights is None and groups is None
        chances = np.ones(count) if weights is None else weights
        self._groups = groups or Rectangles(np.zeros((1, 2), np.int64), np.zeros(count, np.int64))
        members = [np.flatnonzero(self._groups.group == number) for number in range(len(self._groups.shapes))]
        self._members = [(indices, np.cumsum(chances[indices])) for indices in members]
        self._of_shape = {} if groups is None else {tuple(shape): i for i, shape in enumerate(groups.shapes.tolist())}

    @property
    def shares(self) -> NDArray[np.float64]:
        """How often a batch is made of each group, (groups,), sum 1."""
        totals = np.array([chances[-1] for _, chances in self._members])
        return totals / totals.sum()

    def __call__(self, rng: np.random.Generator, size_wh: tuple[int, int]) -> int:
        """size_wh: the network's input for the sample."""
        if self._plain:
            return int(rng.integers(self.count))
        indices, chances = self._members[self._of_shape.get(size_wh, 0)]
        place = np.searchsorted(chances, rng.random() * chances[-1], side="right")
        return int(indices[min(int(place), len(indices) - 1)])


@dataclass(frozen=True, eq=False)
class RectangleSizes:
    """The size of every batch, one of some shapes; a function of seed and iteration. shares: (groups,), how often each is used."""

    shapes: NDArray[np.int64]
    shares: NDArray[np.float64]
    mini_batch: int
    seed: int

    @property
    def largest(self) -> BatchShape:
        return self._shape(int(self.shapes.prod(axis=1).argmax()))

    def at(self, iteration: int) -> BatchShape:
        """Shape of the batches of an iteration (from 0); the first is the largest, to see whether memory suffices."""
        if iteration == 0:
            return self.largest
        draw = np.random.default_rng((self.seed, iteration)).random()
        return self._shape(min(int(np.searchsorted(self.shares.cumsum(), draw, side="right")), len(self.shapes) - 1))

    def _shape(self, group: int) -> BatchShape:
        width, height = self.shapes[group].tolist()
        return BatchShape(width, height, self.mini_batch)

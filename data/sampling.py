"""Selection of the images of a training batch, and of its input size.

Images are drawn uniformly, as in the original, by class balance, or by aspect ratio. The size is fixed, multi-scale
(`random`, train_detector in the original's src/detector.c), or follows the aspect ratio of the batch's images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from data.augment.base import scale

PERIOD = 10
"""Number of iterations for which a random size is kept."""
_FULL_SIZE_AT_END = 100
_PLAIN_COEFFICIENT = 1.4


def size_coefficient(random: float) -> float:
    """Return the largest factor on the input size, given the key `random` of a head."""
    return _PLAIN_COEFFICIENT if random == 1 else random


def class_balanced_weights(
    images: int, image_of: NDArray[np.int64], class_ids: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the probability of each image, (images,), sum 1, if a class is drawn first, then an image that contains it.

    Images without labels keep their share of the data set.
    image_of, class_ids: (labels,), image and class of each label.
    Source: class-aware sampling, Shen, Lin, Huang, Relay Backpropagation, ECCV 2016.
    """
    pairs = np.unique(np.column_stack([image_of, class_ids]), axis=0)
    _, position, images_with = np.unique(pairs[:, 1], return_inverse=True, return_counts=True)
    weights = np.zeros(images)
    np.add.at(weights, pairs[:, 0], 1 / images_with[position.reshape(-1)])
    empty = weights == 0
    labelled = images - int(empty.sum())
    return np.where(empty, 1 / images, weights * labelled / images / max(len(images_with), 1))


@dataclass(frozen=True, eq=False)
class AspectGroups:
    """Images grouped by aspect ratio. shapes: int (groups, 2), input size of each group. group: int (images,)."""

    shapes: NDArray[np.int64]
    group: NDArray[np.int64]


def group_by_aspect(sizes_wh: NDArray[np.int64], net_wh: tuple[int, int], step: int, min_images: int) -> AspectGroups:
    """Form groups of at least `min_images` images (if there are that many), with input sizes in multiples of `step` pixels.

    The longer side of every input is that of `net_wh`; the shorter one follows from the median image of the group.
    sizes_wh: (images, 2), zero if unknown.
    """
    ratios = np.where(sizes_wh.min(axis=1) > 0, sizes_wh[:, 0] / np.maximum(sizes_wh[:, 1], 1), net_wh[0] / net_wh[1])
    order = np.argsort(ratios, kind="stable")
    sorted_shapes = _shapes(ratios[order], max(net_wh), step)
    starts = [0]
    for start in np.flatnonzero((np.diff(sorted_shapes, axis=0) != 0).any(axis=1)) + 1:
        if start - starts[-1] >= min_images:
            starts.append(int(start))
    if len(starts) > 1 and len(order) - starts[-1] < min_images:
        starts.pop()
    ends = [*starts[1:], len(order)]
    group = np.empty(len(order), np.int64)
    group[order] = np.repeat(np.arange(len(starts)), np.diff([*starts, len(order)]))
    medians = [(start + end - 1) // 2 for start, end in zip(starts, ends, strict=True)]
    return AspectGroups(sorted_shapes[medians], group)


def _shapes(ratios: NDArray[np.float64], longest: int, step: int) -> NDArray[np.int64]:
    sides = np.column_stack([np.minimum(ratios, 1), np.minimum(1 / ratios, 1)]) * longest
    return (np.maximum(np.rint(sides / step), 1) * step).astype(np.int64)


class ImageSampler:
    """A sampler that draws image indices with replacement.

    weights: (count,), probability of each image; default: uniform.
    groups: draw only from the group with the shape of the batch.
    """

    def __init__(
        self, count: int, weights: NDArray[np.float64] | None = None, groups: AspectGroups | None = None
    ) -> None:
        self.count, self._uniform = count, weights is None and groups is None
        weights = np.ones(count) if weights is None else weights
        self._groups = groups or AspectGroups(np.zeros((1, 2), np.int64), np.zeros(count, np.int64))
        members = [np.flatnonzero(self._groups.group == number) for number in range(len(self._groups.shapes))]
        self._members = [(indices, np.cumsum(weights[indices])) for indices in members]
        self._of_shape = {} if groups is None else {tuple(shape): i for i, shape in enumerate(groups.shapes.tolist())}

    @property
    def shares(self) -> NDArray[np.float64]:
        """Probability of each group, (groups,), sum 1."""
        totals = np.array([cumulative[-1] for _, cumulative in self._members])
        return totals / totals.sum()

    def __call__(self, rng: np.random.Generator, size_wh: tuple[int, int]) -> int:
        """Draw an index. size_wh: the network's input size for the sample."""
        if self._uniform:
            return int(rng.integers(self.count))
        indices, cumulative = self._members[self._of_shape.get(size_wh, 0)]
        position = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
        return int(indices[min(int(position), len(indices) - 1)])


class BatchShape(NamedTuple):
    """Width and height of the network's input in pixels, and images in one forward pass."""

    width: int
    height: int
    mini_batch: int


class BatchShapes(Protocol):
    """The shape of the batches of each iteration, which depends only on seed and iteration."""

    def at(self, iteration: int) -> BatchShape:
        """Return the shape of the batches of an iteration, counted from 0."""
        ...


@dataclass(frozen=True, kw_only=True)
class MultiScaleShapes:
    """Batches of one fixed size, or multi-scale.

    width, height, mini_batch: from the cfg (mini_batch = batch / subdivisions).
    random: key of the last head; 0: fixed size, 1: factors up to 1.4, else factors up to `random`.
    resize_step, dynamic_minibatch, max_batches: keys of [net].
    """

    width: int
    height: int
    mini_batch: int
    random: float = 0.0
    resize_step: float = 32.0
    dynamic_minibatch: bool = False
    max_batches: int = 0
    seed: int = 0

    @property
    def largest(self) -> BatchShape:
        """The largest possible shape."""
        return self._shape(*self._sides(self._coefficient)) if self.random else self._fixed

    def at(self, iteration: int) -> BatchShape:
        """Return the shape of the batches of an iteration, counted from 0.

        Every ten iterations a factor is drawn by `scale`, and both sides become round(factor * side / step + 1) steps:
        one more than the factor implies, except that a factor below 1 never enlarges. The first ten iterations (to fail
        early if memory is short) and the last hundred (for the batch statistics) use the largest size. With
        dynamic_minibatch, smaller sizes get larger batches.
        """
        if not self.random:
            return self._fixed
        start = iteration // PERIOD * PERIOD
        if start == 0 or start > self.max_batches - _FULL_SIZE_AT_END:
            return self.largest
        factor = scale(np.random.default_rng((self.seed, start)), self._coefficient)
        width, height = self._sides(factor)
        if factor < 1 and (width > self.width or height > self.height):
            width, height = self.width, self.height
        return self._shape(width, height)

    @property
    def _fixed(self) -> BatchShape:
        return BatchShape(self.width, self.height, self.mini_batch)

    @property
    def _coefficient(self) -> float:
        return size_coefficient(self.random)

    def _sides(self, factor: float) -> tuple[int, int]:
        steps = (math.floor(factor * side / self.resize_step + 1 + 0.5) for side in (self.width, self.height))
        width, height = (int(max(count, 1) * self.resize_step) for count in steps)
        return width, height

    def _shape(self, width: int, height: int) -> BatchShape:
        if not self.dynamic_minibatch:
            return BatchShape(width, height, self.mini_batch)
        largest_width, largest_height = self._sides(self._coefficient)
        count = self.mini_batch * largest_width * largest_height // (width * height)
        reduced = int(count * 0.8)
        return BatchShape(width, height, reduced if reduced > self.mini_batch else count)


@dataclass(frozen=True, eq=False)
class RectShapes:
    """Batches in the shapes of aspect-ratio groups. shares: (groups,), probability of each group."""

    shapes: NDArray[np.int64]
    shares: NDArray[np.float64]
    mini_batch: int
    seed: int

    @property
    def largest(self) -> BatchShape:
        return self._shape(int(self.shapes.prod(axis=1).argmax()))

    def at(self, iteration: int) -> BatchShape:
        """Return the shape for an iteration, counted from 0; the first is the largest, to fail early if memory is short."""
        if iteration == 0:
            return self.largest
        draw = np.random.default_rng((self.seed, iteration)).random()
        return self._shape(min(int(np.searchsorted(self.shares.cumsum(), draw, side="right")), len(self.shapes) - 1))

    def _shape(self, group: int) -> BatchShape:
        width, height = self.shapes[group].tolist()
        return BatchShape(width, height, self.mini_batch)

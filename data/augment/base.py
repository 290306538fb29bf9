"""Shared parts of all augmentations: samples, and the original's random functions (src/utils.c) on numpy's Generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.image import Image


class Sample(NamedTuple):
    """An image, uint8 (height, width, channels), and its ground truth.

    ground_truth: for a detector float32 (n, 5), centre x, centre y, width, height relative to the image, and class id;
        for a classifier float32 (classes,), the target of each class.
    """

    image: Image
    ground_truth: NDArray[np.float32]

    @property
    def size_wh(self) -> tuple[int, int]:
        return self.image.shape[1], self.image.shape[0]


DrawSample = Callable[[np.random.Generator], Sample]
"""Draws a random image of the data set with its ground truth, not augmented."""


def with_channels(array: Any) -> Image:
    """Restore the channel axis, which OpenCV drops from grey images."""
    return np.asarray(array, np.uint8).reshape(*array.shape[:2], -1)


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw uniformly between two numbers given in either order (rand_uniform_strong)."""
    return min(low, high) + float(rng.random()) * abs(high - low)


def integer(rng: np.random.Generator, low: int, high: int) -> int:
    """Draw a uniform integer between two inclusive limits given in either order (rand_int)."""
    return int(rng.integers(min(low, high), max(low, high) + 1))


def scale(rng: np.random.Generator, limit: float) -> float:
    """Draw a factor, uniform on [1, limit], or with probability 1/2 its inverse (rand_scale)."""
    factor = uniform(rng, 1.0, limit)
    return factor if coin(rng) else 1.0 / factor


def coin(rng: np.random.Generator) -> bool:
    """Return True with probability 1/2 (random_gen() % 2)."""
    return bool(rng.integers(2))

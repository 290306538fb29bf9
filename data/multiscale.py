"""The size of every training batch: fixed, or multi-scale by `random` (train_detector in the original's src/detector.c)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data.augment import draws

PERIOD = 10
"""Iterations for which a random size is kept."""
_FULL_SIZE_AT_END = 100
_PLAIN_COEFFICIENT = 1.4


class BatchShape(NamedTuple):
    """Width and height of the network's input in pixels, and images in one forward pass."""

    width: int
    height: int
    mini_batch: int


@dataclass(frozen=True, kw_only=True)
class SizeSchedule:
    """Which size an iteration is trained at; a function of seed and iteration alone.

    width, height, mini_batch: what the cfg says (mini_batch = batch / subdivisions).
    random: key of the last head; 0 fixed, 1 factors up to 1.4, else factors up to `random`.
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
        """The largest size that can come up, for asking whether memory suffices."""
        return self._shape(*self._sides(self._coefficient)) if self.random else self._fixed

    def at(self, iteration: int) -> BatchShape:
        """Shape of the batches of an iteration (from 0).

        Every ten iterations a factor is drawn as `draws.scale`, and both sides become round(factor * side / step + 1)
        steps: the size is one step larger than the factor says, except that a factor below 1 never enlarges. The first
        ten iterations (does it fit into memory?) and the last hundred (for the statistics) have the largest size.
        With dynamic_minibatch smaller sizes have larger batches.
        """
        if not self.random:
            return self._fixed
        start = iteration // PERIOD * PERIOD
        if start == 0 or start > self.max_batches - _FULL_SIZE_AT_END:
            return self.largest
        factor = draws.scale(np.random.default_rng((self.seed, start)), self._coefficient)
        width, height = self._sides(factor)
        if factor < 1 and (width > self.width or height > self.height):
            width, height = self.width, self.height
        return self._shape(width, height)

    @property
    def _fixed(self) -> BatchShape:
        return BatchShape(self.width, self.height, self.mini_batch)

    @property
    def _coefficient(self) -> float:
        return _PLAIN_COEFFICIENT if self.random == 1 else self.random

    def _sides(self, factor: float) -> tuple[int, int]:
        width, height = (self._stepped(factor * side) for side in (self.width, self.height))
        return width, height

    def _stepped(self, length: float) -> int:
        steps = math.floor(length / self.resize_step + 1 + 0.5)
        return int(max(steps, 1) * self.resize_step)

    def _shape(self, width: int, height: int) -> BatchShape:
        if not self.dynamic_minibatch:
            return BatchShape(width, height, self.mini_batch)
        largest_width, largest_height = self._sides(self._coefficient)
        count = self.mini_batch * largest_width * largest_height // (width * height)
        cautious = int(count * 0.8)
        return BatchShape(width, height, cautious if cautious > self.mini_batch else count)

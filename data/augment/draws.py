"""The original's random primitives on numpy's Generator (src/utils.c)."""

from __future__ import annotations

import numpy as np


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Uniform between two numbers given in any order (rand_uniform_strong)."""
    return min(low, high) + float(rng.random()) * abs(high - low)


def whole(rng: np.random.Generator, low: int, high: int) -> int:
    """Uniform whole number, both ends included, ends in any order (rand_int)."""
    return int(rng.integers(min(low, high), max(low, high) + 1))


def scale(rng: np.random.Generator, limit: float) -> float:
    """A factor, uniform on [1, limit], or with probability 1/2 one over such a number (rand_scale)."""
    factor = uniform(rng, 1.0, limit)
    return factor if coin(rng) else 1.0 / factor


def coin(rng: np.random.Generator) -> bool:
    """True with probability 1/2 (random_gen() % 2)."""
    return bool(rng.integers(2))

"""Targets of a classifier whose classes form a tree (fill_hierarchy in the original's src/data.c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NOT_TRAINED = -1234.0
"""SECRET_NUM of the original: no gradient where a target has this value."""


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """parents: the class above each class, -1 at the top. group_sizes: lengths of the runs of sisters, in order."""

    parents: Sequence[int]
    group_sizes: Sequence[int]

    def filled(self, target: NDArray[np.float32]) -> NDArray[np.float32]:
        """A target (classes,) with 1 for all that is above a class of it, and groups without any not trained."""
        filled, parents = target.copy(), np.asarray(self.parents)
        above = np.unique(parents[filled != 0])
        while (above >= 0).any():
            filled[above[above >= 0]] = 1
            above = np.unique(parents[above[above >= 0]])
        starts = np.concatenate([[0], np.cumsum(self.group_sizes)[:-1]])
        empty = ~np.logical_or.reduceat(filled != 0, starts)
        filled[np.repeat(empty, self.group_sizes)] = NOT_TRAINED
        return filled

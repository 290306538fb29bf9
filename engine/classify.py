"""One pass of a classifier over pictures, with a stopwatch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.evaluate import Batch


@dataclass(kw_only=True)
class ClassPass:
    """What a pass has found so far: probabilities (classes,) of each picture, by its place in the list; why pictures could not
    be read; seconds in the network. interrupted: set by whoever ended the pass early."""

    found: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    network: float = 0.0
    interrupted: bool = False

    @property
    def order(self) -> list[int]:
        """Places in the list of the pictures classified, in order."""
        return sorted(self.found)

    def probabilities(self, classes: int) -> NDArray[np.floating[Any]]:
        """(n, classes), in `order`."""
        return np.array([self.found[index] for index in self.order], np.float32).reshape(-1, classes)


def classify(probabilities: Callable[[Tensor], Tensor], batches: Iterable[Batch], into: ClassPass) -> Iterator[int]:
    """Run every batch; yields the number of pictures dealt with. probabilities: images to (b, classes) on the CPU."""
    with torch.inference_mode():
        for batch in batches:
            if len(batch.indices):
                start = time.perf_counter()
                rows = probabilities(batch.images).numpy()
                into.network += time.perf_counter() - start
                into.found.update(zip(batch.indices, rows, strict=True))
            into.failures.update(batch.failures)
            yield len(batch.indices) + len(batch.failures)

"""Top-1 and top-k accuracy of a classifier (classifier.c validate_classifier_single)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.matching import Bools, Ints

NO_CLASS = -1


def ranks(probabilities: NDArray[np.floating], class_ids: Ints) -> Ints:
    """Return the rank (n,) of the true classes (n,) among probabilities (n, classes), 0 for the best.

    Ties go to the lower class id. An image without a class (NO_CLASS) or with a NaN probability is never correct and gets
    rank `classes`.
    """
    places = np.full(len(class_ids), probabilities.shape[1], np.int64)
    known = (class_ids != NO_CLASS) & np.isfinite(probabilities).all(1)
    found, true = probabilities[known], class_ids[known]
    own = found[np.arange(len(true)), true][:, None]
    earlier = np.arange(found.shape[1]) < true[:, None]
    places[known] = ((found > own) | ((found == own) & earlier)).sum(1)
    return places


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Accuracy of a classifier. class_ids, predicted, ranks: (n,), true class, best class, rank of the true class. k: of top-k."""

    names: tuple[str, ...]
    class_ids: Ints
    predicted: Ints
    ranks: Ints
    k: int

    @classmethod
    def of(cls, probabilities: NDArray[np.floating], class_ids: Ints, names: Sequence[str], k: int = 5) -> Accuracy:
        """Compute the accuracy; k is limited to the number of classes, as in the original."""
        return cls(
            names=tuple(names),
            class_ids=class_ids,
            predicted=probabilities.argmax(1) if len(probabilities) else np.zeros(0, np.int64),
            ranks=ranks(probabilities, class_ids),
            k=min(k, len(names)),
        )

    def top(self, k: int, chosen: Bools | None = None) -> float:
        """Return the fraction of all or `chosen` (n,) images whose class is among the k most probable; 0 without images."""
        places = self.ranks if chosen is None else self.ranks[chosen]
        return float((places < k).mean()) if len(places) else 0.0

    def matrix(self) -> Ints:
        """Return int64 (classes, classes), rows predicted, columns true class, without images that have no class."""
        counts = np.zeros((len(self.names), len(self.names)), np.int64)
        known = self.class_ids != NO_CLASS
        np.add.at(counts, (self.predicted[known], self.class_ids[known]), 1)
        return counts

    def table(self) -> str:
        """Return a table: all images, then each class with images."""
        width = max(len("class"), len("all"), *(len(name) for name in self.names))
        head = f"{'class':<{width}} {'images':>8} {'top 1':>8} {f'top {self.k}':>8}"
        groups = [("all", np.ones(len(self.ranks), bool)), *self._of_classes()]
        lines = [
            f"{name:<{width}} {int(mine.sum()):>8} {self.top(1, mine):>8.4f} {self.top(self.k, mine):>8.4f}"
            for name, mine in groups
        ]
        return "\n".join([head, *lines])

    def to_json(self) -> dict[str, Any]:
        """Return the numbers for metrics.json."""
        classes = {name: {"images": int(mine.sum()), "top1": self.top(1, mine)} for name, mine in self._of_classes()}
        return {"images": len(self.ranks), "top1": self.top(1), f"top{self.k}": self.top(self.k), "classes": classes}

    def _of_classes(self) -> list[tuple[str, Bools]]:
        """Return name and images of each class that has images; names may repeat."""
        found = [(name, self.class_ids == number) for number, name in enumerate(self.names)]
        return [(name, mine) for name, mine in found if mine.any()]

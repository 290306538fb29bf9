"""Top-1 and top-k accuracy of a classifier (classifier.c validate_classifier_single)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]

NO_CLASS = -1


def ranks(probabilities: Floats, class_ids: Ints) -> Ints:
    """Places (n,) of the true classes (n,) among probabilities (n, classes), 0 the best; of equal ones the first class counts
    first. An image without a class (NO_CLASS), or with a probability that is no number, is never right: place `classes`."""
    places = np.full(len(class_ids), probabilities.shape[1], np.int64)
    known = (class_ids != NO_CLASS) & np.isfinite(probabilities).all(1)
    found, true = probabilities[known], class_ids[known]
    own = found[np.arange(len(true)), true][:, None]
    earlier = np.arange(found.shape[1]) < true[:, None]
    places[known] = ((found > own) | ((found == own) & earlier)).sum(1)
    return places


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """names: of the classes. class_ids, predicted, ranks: (n,) of every image. k: how many classes may be named."""

    names: tuple[str, ...]
    class_ids: Ints
    predicted: Ints
    ranks: Ints
    k: int

    @classmethod
    def of(cls, probabilities: Floats, class_ids: Ints, names: Sequence[str], k: int = 5) -> Accuracy:
        """k is at most the number of classes, as in the original."""
        return cls(
            names=tuple(names),
            class_ids=class_ids,
            predicted=probabilities.argmax(1) if len(probabilities) else np.zeros(0, np.int64),
            ranks=ranks(probabilities, class_ids),
            k=min(k, len(names)),
        )

    def top(self, k: int, chosen: NDArray[np.bool_] | None = None) -> float:
        """Share of the images, or of those chosen (n,), whose class is among the k most probable ones; 0 without images."""
        places = self.ranks if chosen is None else self.ranks[chosen]
        return float((places < k).mean()) if len(places) else 0.0

    def matrix(self) -> Ints:
        """int64 (classes, classes): rows predicted class, columns true class; images without a class left out."""
        counts = np.zeros((len(self.names), len(self.names)), np.int64)
        known = self.class_ids != NO_CLASS
        np.add.at(counts, (self.predicted[known], self.class_ids[known]), 1)
        return counts

    def table(self) -> str:
        """A table: all images, then each class with images."""
        width = max(len("class"), len("all"), *(len(name) for name in self.names))
        head = f"{'class':<{width}} {'images':>8} {'top 1':>8} {f'top {self.k}':>8}"
        groups = [("all", np.ones(len(self.ranks), bool)), *self._of_classes()]
        lines = [
            f"{name:<{width}} {int(mine.sum()):>8} {self.top(1, mine):>8.4f} {self.top(self.k, mine):>8.4f}"
            for name, mine in groups
        ]
        return "\n".join([head, *lines])

    def to_json(self) -> dict[str, Any]:
        """Numbers for metrics.json."""
        classes = {name: {"images": int(mine.sum()), "top1": self.top(1, mine)} for name, mine in self._of_classes()}
        return {"images": len(self.ranks), "top1": self.top(1), f"top{self.k}": self.top(self.k), "classes": classes}

    def _of_classes(self) -> list[tuple[str, NDArray[np.bool_]]]:
        """Name and images of each class that has some; names may repeat."""
        found = [(name, self.class_ids == number) for number, name in enumerate(self.names)]
        return [(name, mine) for name, mine in found if mine.any()]

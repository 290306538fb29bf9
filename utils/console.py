"""Detections in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from utils.detections import Detections


def found_text(class_ids: NDArray[np.int64], names: Sequence[str], most: int | None = None) -> str:
    """How many of which class: "2 dog, 1 cat", or "no objects". class_ids: (n,). most: classes that are named."""
    ids, first, counts = np.unique(class_ids, return_index=True, return_counts=True)
    order = np.lexsort((first, -counts))
    parts = [f"{counts[place]} {names[ids[place]]}" for place in order[:most]]
    if other := len(order) - len(parts):
        parts.append(f"{counts[order[most:]].sum()} of {other} other class{'es' if other > 1 else ''}")
    return ", ".join(parts) or "no objects"


def darknet_lines(found: Detections, names: Sequence[str]) -> list[str]:
    """The lines that the original prints for a picture, such as "dog: 99%" (image.c draw_detections_v3).

    Boxes come from left to right; a box with several classes has a line for each, the best one first.
    """
    left, top, right, bottom = found.xyxy.T
    order = np.lexsort((-found.scores, bottom, right, top, left))
    return [f"{names[found.class_ids[place]]}: {found.scores[place] * 100:.0f}%" for place in order]

"""IoU, and matching of detections to objects, shared by the protocols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from utils.detections import Detections, GroundTruth

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def pairwise_iou(a_xyxy: NDArray[np.floating], b_xyxy: NDArray[np.floating], *, border: float = 0.0) -> Floats:
    """Return the intersection over union (n, m) in [0, 1]; 0 if the union is empty.

    border: added to every width and height (Pascal VOC counts the pixel at the far edge: 1).
    """
    a, b = a_xyxy.astype(np.float64)[:, None], b_xyxy.astype(np.float64)[None]
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    overlap = np.prod(np.maximum(high - low + border, 0), axis=-1)
    with np.errstate(invalid="ignore"):  # the size of a box whose exp overflowed is inf - inf
        areas = [np.prod(box[..., 2:] - box[..., :2] + border, axis=-1) for box in (a, b)]
    union = areas[0] + areas[1] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def best_match(
    found: Detections, labels: GroundTruth, candidates: Bools | None = None, *, border: float = 0.0
) -> tuple[Ints, Floats]:
    """Return, for every detection, the object of its class that it overlaps most, and their IoU; ties go to the first.

    The index is -1 and the IoU 0 if there is no overlap. candidates: bool (m,), the objects that may be chosen.
    """
    if not len(found) or not len(labels):
        return np.full(len(found), -1), np.zeros(len(found))
    iou = pairwise_iou(found.xyxy, labels.xyxy, border=border)
    allowed = found.class_ids[:, None] == labels.class_ids[None]
    if candidates is not None:
        allowed &= candidates
    iou[~allowed] = 0
    best = iou.argmax(axis=1)
    best_iou = iou[np.arange(len(found)), best]
    return np.where(best_iou > 0, best, -1), best_iou


class Ranked(NamedTuple):
    """All detections of a data set by descending score; equal scores keep the order of images.

    scores, class_ids, first: (n,); first: whether it found an object that no better-ranked detection found.
    totals: (classes,) number of objects of each class.
    """

    scores: Floats
    class_ids: Ints
    first: Bools
    totals: Ints


def rank(
    found: Sequence[Detections],
    matches: Sequence[Ints],
    ground_truth: Sequence[GroundTruth],
    totals: Ints,
    chosen: Sequence[Bools],
) -> Ranked:
    """Merge the matches of every image (indices into its objects, -1 for none) into one ranking of the `chosen` detections."""
    offsets = np.cumsum([0, *map(len, ground_truth)])
    numbered = [np.where(index >= 0, index + start, -1) for index, start in zip(matches, offsets, strict=False)]
    scores = _joined([each.scores[k] for each, k in zip(found, chosen, strict=True)], np.float64)
    class_ids = _joined([each.class_ids[k] for each, k in zip(found, chosen, strict=True)], np.int64)
    match = _joined([each[k] for each, k in zip(numbered, chosen, strict=True)], np.int64)
    order = np.argsort(-scores, kind="stable")
    return Ranked(scores[order], class_ids[order], first_of_each(match[order]), totals)


def first_of_each(match: Ints) -> Bools:
    """Return True where a non-negative number occurs for the first time."""
    first = np.zeros(len(match), np.bool_)
    first[np.unique(match, return_index=True)[1]] = True
    return first & (match >= 0)


def class_totals(ground_truth: Sequence[GroundTruth], counted: Sequence[Bools], classes: int) -> Ints:
    """Return the number of objects (classes,) of each class among those `counted`; ids beyond the classes are ignored."""
    ids = _joined([labels.class_ids[c] for labels, c in zip(ground_truth, counted, strict=True)], np.int64)
    return np.bincount(ids[ids < classes], minlength=classes)


def _joined(parts: Sequence[NDArray], dtype: type) -> NDArray:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)

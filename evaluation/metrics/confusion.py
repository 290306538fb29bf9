"""Confusion matrix with missed objects and false positives, and the images with the lowest recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.metrics.matching import Bools, Floats, Ints, pairwise_iou
from utils.detections import Detections, GroundTruth

_IOU_THRESH = 0.45


def pair_greedily(iou: Floats, thresh: float) -> tuple[Ints, Ints]:
    """Return one-to-one pairs (rows, columns) of an (n, m) overlap above `thresh`, best first.

    Each round takes all pairs that are the best of both their row and their column, which is equivalent to taking the
    single best pair each time. Ties go to the first row, then the first column.
    """
    left = np.where(iou > thresh, iou, 0.0)
    rows, columns = np.zeros(0, np.int64), np.zeros(0, np.int64)
    while left.any():
        row_best, column_best = left.argmax(axis=1), left.argmax(axis=0)
        taken = np.flatnonzero((column_best[row_best] == np.arange(len(left))) & (left.max(axis=1) > 0))
        rows, columns = np.append(rows, taken), np.append(columns, row_best[taken])
        left[taken] = 0
        left[:, row_best[taken]] = 0
    return rows, columns


@dataclass(frozen=True, kw_only=True, eq=False)
class Confusion:
    """Confusion matrix, and matches of every image.

    matrix: int64 (classes + 1, classes + 1), rows predicted class, columns true class; the last is background.
    found, objects: (images,), objects found with the correct class, and all objects.
    hits, right: per image, which labels were found, and which detections found one.
    """

    matrix: Ints
    found: Ints
    objects: Ints
    hits: tuple[Bools, ...]
    right: tuple[Bools, ...]
    conf_thresh: float

    def worst(self, count: int) -> Ints:
        """Return the images that lose the most recall: by missed objects, then missed fraction, then list order."""
        missed = self.objects - self.found
        share = missed / np.maximum(self.objects, 1)
        order = np.lexsort((np.arange(len(missed)), -share, -missed))
        return order[missed[order] > 0][:count]


def confusion(
    found: Sequence[Detections], ground_truth: Sequence[GroundTruth], classes: int, *, conf_thresh: float = 0.25
) -> Confusion:
    """Pair detections with objects by overlap alone, regardless of class.

    Crowd and difficult objects do not count, nor do detections that overlap only those.
    """
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    hits = [np.zeros(len(labels), np.bool_) for labels in ground_truth]
    right = [np.zeros(len(each), np.bool_) for each in found]
    objects = np.zeros(len(found), np.int64)
    for i, (each, labels) in enumerate(zip(found, ground_truth, strict=True)):
        sure = np.flatnonzero((each.scores > np.float32(conf_thresh)) & (each.class_ids < classes))
        usual = ~(labels.crowd | labels.difficult) & (labels.class_ids < classes)
        real = np.flatnonzero(usual)
        iou = pairwise_iou(each.xyxy[sure], labels.xyxy)
        rows, columns = pair_greedily(iou[:, real], _IOU_THRESH)
        predicted, true = each.class_ids[sure], labels.class_ids[real]
        np.add.at(matrix, (predicted[rows], true[columns]), 1)
        np.add.at(matrix, (np.full(len(true) - len(columns), classes), np.delete(true, columns)), 1)
        alone = ~np.isin(np.arange(len(sure)), rows) & ~(iou[:, ~usual] > _IOU_THRESH).any(axis=1)
        np.add.at(matrix, (predicted[alone], np.full(int(alone.sum()), classes)), 1)
        same = predicted[rows] == true[columns]
        hits[i][real[columns[same]]] = True
        right[i][sure[rows[same]]] = True
        objects[i] = len(real)
    return Confusion(
        matrix=matrix,
        found=np.array([int(hit.sum()) for hit in hits], np.int64),
        objects=objects,
        hits=tuple(hits),
        right=tuple(right),
        conf_thresh=conf_thresh,
    )

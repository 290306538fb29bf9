"""Precision, recall and F1 over the confidence threshold, and precision over recall: data of the plots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.metrics.darknet import curves
from evaluation.metrics.matching import Floats, Ranked

STEPS = 501


@dataclass(frozen=True, kw_only=True, eq=False)
class ConfidenceCurves:
    """Every array is (classes, steps); rows of classes without objects are NaN.

    thresholds: (steps,) from 0 to 1. precision is 1 where no detection is left.
    recalls: (steps,) from 0 to 1. precision_at_recall: best precision at that recall or a higher one.
    """

    thresholds: Floats
    precision: Floats
    recall: Floats
    f1: Floats
    recalls: Floats
    precision_at_recall: Floats

    @property
    def best_threshold(self) -> float:
        """The confidence at which the mean F1 is best; 0 when there are no objects."""
        if np.isnan(self.f1).all():
            return 0.0
        return float(self.thresholds[np.nanmean(self.f1, axis=0).argmax()])


def confidence_curves(ranked: Ranked) -> ConfidenceCurves:
    """Curves of every class from the original's ranking (see evaluation/metrics/darknet.py)."""
    grid = np.linspace(0, 1, STEPS)
    shape = (len(ranked.totals), STEPS)
    precision, recall, at_recall = (np.full(shape, np.nan) for _ in range(3))
    for class_id, (recalls, precisions) in enumerate(curves(ranked)):
        if not ranked.totals[class_id]:
            continue
        scores = ranked.scores[ranked.class_ids == class_id]
        left = np.searchsorted(-scores, -grid, side="left")  # detections scored above each threshold
        precision[class_id] = np.concatenate([[1.0], precisions])[left]
        recall[class_id] = np.concatenate([[0.0], recalls])[left]
        envelope = np.append(np.maximum.accumulate(precisions[::-1])[::-1], 0.0)
        at_recall[class_id] = envelope[np.searchsorted(recalls, grid, side="left")]
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.where(np.isnan(total), np.nan, 0.0), where=total > 0)
    return ConfidenceCurves(
        thresholds=grid, precision=precision, recall=recall, f1=f1, recalls=grid, precision_at_recall=at_recall
    )

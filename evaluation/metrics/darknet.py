"""The original's `detector map` (src/detector.c, validate_detector_map).

A detection matches the object of its class that it overlaps most, if by more than the IoU threshold; of several that
match the same object, the one with the best score is correct. Classes without objects have an average precision of 0 and
count in the mean. Crowds are not objects. Finding a difficult object is neither right nor wrong, except in the counts at
the confidence threshold, where it is wrong: there the original ignores that it has discarded the detection.

The counts at the confidence threshold have another quirk. Of several detections of one object, only the first in the
original's list can be correct, even if its own score is below the threshold. That list is sorted by the scores of the
last class, boxes without one by those of the class before, and so on; see `Detections.ranks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.metrics.matching import Bools, Floats, Ints, Ranked, best_match, class_totals, first_of_each, rank
from utils.detections import Detections, GroundTruth

SCORE_THRESH = 0.005
NMS_THRESH = 0.45
MATCH_THRESH = 0.5  # IoU
CONF_THRESH = 0.25  # of precision, recall and F1
POINTS = (0, 11, 101)
STEPS = 501  # of the confidence curves


@dataclass(frozen=True, kw_only=True, eq=False)
class DarknetMap:
    """Result of the original's protocol.

    ranked: the detections it is based on. true_positives, false_positives: (classes,) at `conf_thresh`.
    iou_sums: (classes,) sum of the IoU of true positives.
    """

    ranked: Ranked
    iou_thresh: float
    conf_thresh: float
    true_positives: Ints
    false_positives: Ints
    iou_sums: Floats

    def average_precisions(self, points: int = 0) -> Floats:
        """Return the average precision (classes,): area under the curve, or mean precision at 11 or 101 recalls."""
        return np.array([average_precision(*curve, points) for curve in curves(self.ranked)])

    def mean_average_precision(self, points: int = 0) -> float:
        """Return the mean over all classes, including those without objects; 0 if there are no classes."""
        values = self.average_precisions(points)
        return float(values.mean()) if len(values) else 0.0

    @property
    def tp(self) -> int:
        return int(self.true_positives.sum())

    @property
    def fp(self) -> int:
        return int(self.false_positives.sum())

    @property
    def fn(self) -> int:
        return int(self.ranked.totals.sum()) - self.tp

    @property
    def precision(self) -> float:
        return ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        return ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        return ratio(2 * self.precision * self.recall, self.precision + self.recall)

    @property
    def average_iou(self) -> float:
        """Mean IoU of all detections above the threshold; those that found nothing count as 0."""
        return ratio(float(self.iou_sums.sum()), self.tp + self.fp)


def ratio(part: float, whole: float) -> float:
    """Return part / whole, or 0 if `whole` is 0 (where the original prints nan)."""
    return part / whole if whole else 0.0


def darknet_map(
    found: Sequence[Detections],
    ground_truth: Sequence[GroundTruth],
    classes: int,
    *,
    iou_thresh: float = MATCH_THRESH,
    conf_thresh: float = CONF_THRESH,
) -> DarknetMap:
    """Measure detections against the ground truth, image by image in the same order.

    Detections with a score of at most SCORE_THRESH are ignored. To get the original's numbers, they must come from NMS at
    NMS_THRESH.
    """
    found = [each.select((each.scores > SCORE_THRESH) & (each.class_ids < classes)) for each in found]
    ordinary = [~(labels.crowd | labels.difficult) & (labels.class_ids < classes) for labels in ground_truth]
    matches, chosen = [], []
    counts = np.zeros((2, classes), np.int64)
    iou_sums = np.zeros(classes)
    for each, labels, usual in zip(found, ground_truth, ordinary, strict=True):
        index, iou = best_match(each, labels, usual)
        index = np.where(iou > iou_thresh, index, -1)
        hard_iou = best_match(each, labels, labels.difficult)[1] if labels.difficult.any() else np.zeros(len(each))
        matches.append(index)
        chosen.append((index >= 0) | (hard_iou <= iou_thresh))
        confident = each.scores > np.float32(conf_thresh)
        right = _first_listed(index, each) & confident
        counts[0] += np.bincount(each.class_ids[right], minlength=classes)
        counts[1] += np.bincount(each.class_ids[confident & ~right], minlength=classes)
        iou_sums += np.bincount(each.class_ids[right], iou[right], minlength=classes)
    return DarknetMap(
        ranked=rank(found, matches, ground_truth, class_totals(ground_truth, ordinary, classes), chosen),
        iou_thresh=iou_thresh,
        conf_thresh=conf_thresh,
        true_positives=counts[0],
        false_positives=counts[1],
        iou_sums=iou_sums,
    )


def _first_listed(match: Ints, found: Detections) -> Bools:
    """Return a mask of the first detection of each object in the original's list; without ranks, the best one."""
    if found.ranks is None:
        return first_of_each(match)
    order = np.argsort(found.ranks, kind="stable")
    first = np.zeros(len(match), np.bool_)
    first[order] = first_of_each(match[order])
    return first


def curves(ranked: Ranked) -> list[tuple[Floats, Floats]]:
    """Return recall and precision of every class after each of its detections, best score first."""
    out = []
    for class_id, total in enumerate(ranked.totals):
        right = ranked.first[ranked.class_ids == class_id]
        true_positives = np.cumsum(right)
        recall = true_positives / total if total else np.zeros(len(right))
        out.append((recall, true_positives / np.arange(1, len(right) + 1)))
    return out


def average_precision(recall: Floats, precision: Floats, points: int) -> float:
    """Return the area under the curve (points 0) or the mean of the best precision at recalls 0, 1/(points-1), ..., 1.

    As in the original, the area between two detections uses the best precision from the *earlier* of the two on; other
    programs use that from the later one on.
    """
    if not len(recall):
        return 0.0
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if points == 0:
        height = np.concatenate([envelope[:1], envelope[:-1]])
        return float(np.sum(np.diff(recall, prepend=0.0) * height))
    # Not divided by points - 1: the original is built with -Ofast, which multiplies by the reciprocal. The fourth of 11
    # recalls is therefore slightly above 0.3, and 3 of 10 objects do not reach it.
    wanted = np.arange(points) * (1.0 / (points - 1))
    at = np.searchsorted(recall, wanted, side="left")
    return float(np.append(envelope, 0.0)[at].mean())


@dataclass(frozen=True, kw_only=True, eq=False)
class ConfidenceCurves:
    """Curves over the confidence threshold, (classes, steps) each; rows of classes without objects are NaN.

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
        """The confidence threshold with the best mean F1; 0 if there are no objects."""
        if np.isnan(self.f1).all():
            return 0.0
        return float(self.thresholds[np.nanmean(self.f1, axis=0).argmax()])


def confidence_curves(ranked: Ranked) -> ConfidenceCurves:
    """Compute the curves of every class from the original's ranking."""
    grid = np.linspace(0, 1, STEPS)
    shape = (len(ranked.totals), STEPS)
    precision, recall, at_recall = (np.full(shape, np.nan) for _ in range(3))
    for class_id, (recalls, precisions) in enumerate(curves(ranked)):
        if not ranked.totals[class_id]:
            continue
        scores = ranked.scores[ranked.class_ids == class_id]
        left = np.searchsorted(-scores, -grid, side="left")  # number of detections above each threshold
        precision[class_id] = np.concatenate([[1.0], precisions])[left]
        recall[class_id] = np.concatenate([[0.0], recalls])[left]
        envelope = np.append(np.maximum.accumulate(precisions[::-1])[::-1], 0.0)
        at_recall[class_id] = envelope[np.searchsorted(recalls, grid, side="left")]
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.where(np.isnan(total), np.nan, 0.0), where=total > 0)
    return ConfidenceCurves(
        thresholds=grid, precision=precision, recall=recall, f1=f1, recalls=grid, precision_at_recall=at_recall
    )

"""Pascal VOC's protocol (VOCdevkit, VOCevaldet.m): one IoU threshold, difficult objects ignored.

A detection matches the object of its class that it overlaps most, including difficult ones. Boxes include the pixels at
their far edges. Crowds, which VOC does not have, are treated as difficult.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.metrics.darknet import MATCH_THRESH, curves
from evaluation.metrics.matching import Floats, best_match, class_totals, rank
from utils.detections import Detections, GroundTruth
from utils.files import write_text


@dataclass(frozen=True, kw_only=True, eq=False)
class VocResult:
    """Average precision of every class; NaN for classes without objects, which do not count in the mean.

    ap_2007: (classes,) mean precision at 11 recalls. ap_2010: (classes,) area under the monotonic curve.
    """

    ap_2007: Floats
    ap_2010: Floats

    @property
    def map_2007(self) -> float:
        return _mean(self.ap_2007)

    @property
    def map_2010(self) -> float:
        return _mean(self.ap_2010)


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def voc_ap(found: Sequence[Detections], ground_truth: Sequence[GroundTruth], classes: int) -> VocResult:
    """Measure detections against the ground truth, image by image in the same order."""
    ordinary = [~(labels.crowd | labels.difficult) for labels in ground_truth]
    matches, chosen = [], []
    for each, labels, usual in zip(found, ground_truth, ordinary, strict=True):
        index, iou = best_match(each, labels, border=1.0)
        index = np.where(iou >= MATCH_THRESH, index, -1)
        matches.append(index)
        passed_over = (index >= 0) & ~np.append(usual, True)[index]
        chosen.append(~passed_over & (each.class_ids < classes))
    totals = class_totals(ground_truth, ordinary, classes)
    ranked = rank(found, matches, ground_truth, totals, chosen)
    both = np.array([_average_precisions(*curve) for curve in curves(ranked)]).reshape(-1, 2)
    both[totals == 0] = np.nan
    return VocResult(ap_2007=both[:, 0], ap_2010=both[:, 1])


def _average_precisions(recall: Floats, precision: Floats) -> tuple[float, float]:
    """Return the average precision at 11 recalls (2007) and as area (since 2010)."""
    if not len(recall):
        return 0.0, 0.0
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, np.arange(11) / 10, side="left")
    area = float(np.sum(np.diff(recall, prepend=0.0) * envelope))
    return float(np.append(envelope, 0.0)[at].mean()), area


def write_results(
    folder: Path,
    images: Iterable[tuple[Path, tuple[int, int], Detections]],
    names: Sequence[str],
    prefix: str = "comp4_det_test_",
) -> None:
    """Write VOCdevkit's result files, one per class (detector.c print_detector_detections).

    A line has the image's name up to its first dot, the score, and the box in pixels counted from 1.
    images: path, (width, height), and detections.
    """
    files = [f"{prefix}{name.replace('/', '_')}.txt" for name in names]
    lines: dict[str, list[str]] = {file: [] for file in files}
    for image, size_wh, found in images:
        for box, score, class_id in found:
            corners = [*np.maximum(box[:2] + 1, 1), *np.minimum(box[2:] + 1, size_wh)]
            text = " ".join(f"{value:f}" for value in corners)
            lines[files[class_id]].append(f"{image.name.partition('.')[0]} {score:f} {text}\n")
    for file, rows in lines.items():
        write_text(folder / file, "".join(rows))

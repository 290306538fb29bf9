"""Measurement of all protocols, and reports as text and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.metrics.coco import CocoResult, coco_ap, result_rows
from evaluation.metrics.confusion import Confusion, confusion
from evaluation.metrics.darknet import (
    CONF_THRESH,
    MATCH_THRESH,
    POINTS,
    ConfidenceCurves,
    DarknetMap,
    confidence_curves,
    darknet_map,
    ratio,
)
from evaluation.metrics.matching import Ints
from evaluation.metrics.voc import VocResult, voc_ap
from utils.detections import Detections, GroundTruth


@dataclass(frozen=True, kw_only=True, eq=False)
class Metrics:
    """Metrics of every protocol. images_per_class: (classes,) images with an object of the class."""

    names: tuple[str, ...]
    images: int
    images_per_class: Ints
    darknet: DarknetMap
    coco: CocoResult
    voc: VocResult
    curves: ConfidenceCurves
    confusion: Confusion


def measure(
    found: Sequence[Detections],
    submitted: Sequence[Detections],
    ground_truth: Sequence[GroundTruth],
    names: tuple[str, ...],
    image_ids: Sequence[int],
    category_ids: Sequence[int],
    *,
    iou_thresh: float = MATCH_THRESH,
    conf_thresh: float = CONF_THRESH,
) -> tuple[Metrics, list[dict[str, Any]]]:
    """Return the metrics of all protocols, and COCO's result rows. All sequences have the same order of images.

    found: detections for the original's mAP and the confusion matrix.
    submitted: detections for COCO and Pascal VOC, see `protocol_ways`.
    iou_thresh: IoU threshold of the original's mAP.
    conf_thresh: confidence threshold of precision, recall and the confusion matrix.
    """
    rows = result_rows(submitted, image_ids, category_ids)
    darknet = darknet_map(found, ground_truth, len(names), iou_thresh=iou_thresh, conf_thresh=conf_thresh)
    metrics = Metrics(
        names=names,
        images=len(found),
        images_per_class=images_per_class([t.class_ids[~(t.crowd | t.difficult)] for t in ground_truth], len(names)),
        darknet=darknet,
        coco=coco_ap(rows, ground_truth, image_ids, category_ids),
        voc=voc_ap(submitted, ground_truth, len(names)),
        curves=confidence_curves(darknet.ranked),
        confusion=confusion(found, ground_truth, len(names), conf_thresh=conf_thresh),
    )
    return metrics, rows


_COLUMNS = ("images", "labels", "P", "R", "F1", "mAP area", "mAP 11", "mAP 101", "AP50", "AP", "VOC07", "VOC10")


_DARKNET_APS = ("darknet_ap_area", "darknet_ap_11", "darknet_ap_101")
_APS = (*_DARKNET_APS, "coco_ap50", "coco_ap", "voc_ap_2007", "voc_ap_2010")


def class_rows(metrics: Metrics) -> list[dict[str, Any]]:
    """Return a row per class with the keys of metrics.json; None if a protocol has nothing to measure."""
    d, coco, voc = metrics.darknet, metrics.coco, metrics.voc
    aps = [*map(d.average_precisions, POINTS), coco.ap50, coco.ap, voc.ap_2007, voc.ap_2010]
    rows = []
    for i, name in enumerate(metrics.names):
        head = {"class_id": i, "name": name, "images": int(metrics.images_per_class[i])}
        total, tp, fp = int(d.ranked.totals[i]), int(d.true_positives[i]), int(d.false_positives[i])
        rows.append(_row(head, total, tp, fp, d.iou_sums[i], [values[i] for values in aps]))
    return rows


def all_row(metrics: Metrics) -> dict[str, Any]:
    """Return the row above the classes: the mean of every protocol."""
    d, coco, voc = metrics.darknet, metrics.coco.statistics, metrics.voc
    aps = [*map(d.mean_average_precision, POINTS), coco["AP50"], coco["AP"], voc.map_2007, voc.map_2010]
    head = {"name": "all", "images": metrics.images}
    return _row(head, int(d.ranked.totals.sum()), d.tp, d.fp, d.iou_sums.sum(), aps)


def _row(head: dict[str, Any], total: int, tp: int, fp: int, iou_sum: float, aps: Sequence[float]) -> dict[str, Any]:
    precision, recall = ratio(tp, tp + fp), ratio(tp, total)
    return {
        **head,
        "labels": total,
        "precision": precision,
        "recall": recall,
        "f1": ratio(2 * precision * recall, precision + recall),
        "average_iou": ratio(float(iou_sum), tp + fp),
        "tp": tp,
        "fp": fp,
        "fn": total - tp,
        **dict(zip(_APS, map(_number, aps), strict=True)),
    }


def _number(value: float) -> float | None:
    """Return None if nothing could be measured: COCO's -1, or NaN."""
    return float(value) if value >= 0 else None


def table(metrics: Metrics, *, every_class: bool = False) -> str:
    """Return the table for the console: all classes together, then each class with objects, or every class."""
    keys = ("precision", "recall", "f1", *_APS)
    rows = [all_row(metrics), *(row for row in class_rows(metrics) if row["labels"] or every_class)]
    width = max(len(str(row["name"])) for row in rows)
    d = metrics.darknet
    darknet = f"Darknet, IoU {d.iou_thresh:g}, P R F1 at confidence {d.conf_thresh:g}"
    lines = [" " * (width + 18) + f"{darknet:^51}{'COCO':^16}{'Pascal VOC':^16}".rstrip()]
    lines.append(f"{'class':<{width}}" + "".join(f"{column:>{_width(column)}}" for column in _COLUMNS))
    for row in rows:
        counts = f"{row['images']:>9}{row['labels']:>9}"
        cells = (_cell(row[key], _width(column)) for key, column in zip(keys, _COLUMNS[2:], strict=True))
        lines.append(f"{row['name']:<{width}}{counts}{''.join(cells)}")
    return "\n".join(lines)


def _width(column: str) -> int:
    return 9 if column.startswith(("images", "labels", "mAP")) else 8


def _cell(value: float | None, width: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}.4f}"


def coco_text(coco: CocoResult) -> str:
    """Return the twelve numbers in two lines."""
    values = [f"{name} {value:.4f}" for name, value in coco.statistics.items()]
    return f"COCO: {', '.join(values[:6])}\n      {', '.join(values[6:])}"


def darknet_text(darknet: DarknetMap, names: Sequence[str], points: int) -> str:
    """Return the text that the original prints at the end of `detector map`, verbatim, for scripts that parse it."""
    d = darknet
    aps = d.average_precisions(points)
    lines = [f"\n detections_count = {len(d.ranked.scores)}, unique_truth_count = {int(d.ranked.totals.sum())}  "]
    for i, name in enumerate(names):
        counts = f"(TP = {d.true_positives[i]}, FP = {d.false_positives[i]})"
        lines.append(f"class_id = {i}, name = {name}, ap = {aps[i] * 100:2.2f}%   \t {counts} ")
    threshold = d.conf_thresh
    precision = c_ratio(d.tp, d.tp + d.fp)
    recall = c_ratio(d.tp, d.tp + d.fn)
    f1 = c_ratio(2 * d.precision * d.recall, d.precision + d.recall)
    lines.append(f"\n for conf_thresh = {threshold:1.2f}, precision = {precision}, recall = {recall}, F1-score = {f1} ")
    lines.append(
        f" for conf_thresh = {threshold:0.2f}, TP = {d.tp}, FP = {d.fp}, FN = {d.fn}, "
        f"average IoU = {d.average_iou * 100:2.2f} % "
    )
    used = f"used {points} Recall-points " if points else "used Area-Under-Curve for each unique Recall "
    mean = d.mean_average_precision(points)
    lines.append(f"\n IoU threshold = {d.iou_thresh * 100:2.0f} %, {used}")
    shown = f"mAP@{d.iou_thresh:0.2f}"
    lines.append(f" mean average precision ({shown}) = {mean:f}, or {mean * 100:2.2f} % ")
    return "\n".join(lines)


def c_ratio(part: float, whole: float) -> str:
    """Format with two decimals; 0 / 0 is "-nan", as the original prints it on common processors."""
    return f"{part / whole:1.2f}" if whole else "-nan"


def to_json(metrics: Metrics) -> dict[str, Any]:
    """Return the numbers of metrics.json; None if there is nothing to measure."""
    summary, d = all_row(metrics), metrics.darknet
    return {
        "images": metrics.images,
        "labels": summary["labels"],
        "darknet": {
            "iou_thresh": d.iou_thresh,
            "conf_thresh": d.conf_thresh,
            **{key: summary[key] for key in ("precision", "recall", "f1", "average_iou", "tp", "fp", "fn")},
            **{key.replace("darknet_ap", "map"): summary[key] for key in _DARKNET_APS},
        },
        "coco": {name: _number(value) for name, value in metrics.coco.statistics.items()},
        "voc": {"map_2007": _number(metrics.voc.map_2007), "map_2010": _number(metrics.voc.map_2010)},
        "best_f1_confidence": metrics.curves.best_threshold,
        "classes": class_rows(metrics),
    }


def images_per_class(class_ids: Sequence[Ints], classes: int) -> Ints:
    """Return the number of images (classes,) with an object of each class, from the class ids of every image."""
    counts = np.zeros(classes, np.int64)
    for ids in class_ids:
        counts[np.unique(ids[ids < classes])] += 1
    return counts

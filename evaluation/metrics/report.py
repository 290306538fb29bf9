"""The numbers of every protocol: measured, as text and as JSON."""

from __future__ import annotations

import math
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
    """Metrics of all protocols, and COCO's result rows; images in the same order everywhere.

    found: for the original's mAP and the confusion matrix. submitted: for COCO and Pascal VOC, see `protocol_ways`.
    iou_thresh: of the original's mAP. conf_thresh: the confidence of precision, recall and confusion.
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
_GROUPS = ("", "Darknet, IoU {:g}, P R F1 at confidence {:g}", "COCO", "Pascal VOC")


def class_rows(metrics: Metrics) -> list[dict[str, Any]]:
    """A row for each class, keys as in metrics.json; None where a protocol has nothing to measure."""
    d = metrics.darknet
    area, eleven, hundred = (d.average_precisions(points) for points in POINTS)
    rows = []
    for i, name in enumerate(metrics.names):
        tp, fp, total = int(d.true_positives[i]), int(d.false_positives[i]), int(d.ranked.totals[i])
        precision, recall = ratio(tp, tp + fp), ratio(tp, total)
        rows.append(
            {
                "class_id": i,
                "name": name,
                "images": int(metrics.images_per_class[i]),
                "labels": total,
                "precision": precision,
                "recall": recall,
                "f1": ratio(2 * precision * recall, precision + recall),
                "average_iou": ratio(float(d.iou_sums[i]), tp + fp),
                "tp": tp,
                "fp": fp,
                "fn": total - tp,
                "darknet_ap_area": float(area[i]),
                "darknet_ap_11": float(eleven[i]),
                "darknet_ap_101": float(hundred[i]),
                "coco_ap50": _number(metrics.coco.ap50[i]),
                "coco_ap": _number(metrics.coco.ap[i]),
                "voc_ap_2007": _number(metrics.voc.ap_2007[i]),
                "voc_ap_2010": _number(metrics.voc.ap_2010[i]),
            }
        )
    return rows


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def all_row(metrics: Metrics) -> dict[str, Any]:
    """The row above the classes: every protocol's own mean."""
    d, c = metrics.darknet, metrics.coco.statistics
    area, eleven, hundred = (d.mean_average_precision(points) for points in POINTS)
    return {
        "name": "all",
        "images": metrics.images,
        "labels": int(d.ranked.totals.sum()),
        "precision": d.precision,
        "recall": d.recall,
        "f1": d.f1,
        "average_iou": d.average_iou,
        "tp": d.tp,
        "fp": d.fp,
        "fn": d.fn,
        "darknet_ap_area": area,
        "darknet_ap_11": eleven,
        "darknet_ap_101": hundred,
        "coco_ap50": c["AP50"] if c["AP50"] >= 0 else None,
        "coco_ap": c["AP"] if c["AP"] >= 0 else None,
        "voc_ap_2007": _number(metrics.voc.map_2007),
        "voc_ap_2010": _number(metrics.voc.map_2010),
    }


def table(metrics: Metrics, *, every_class: bool = False) -> str:
    """The table for the console: all classes together, then each class with objects, or every class."""
    keys: tuple[str, ...] = ("precision", "recall", "f1", "darknet_ap_area", "darknet_ap_11", "darknet_ap_101")
    keys += ("coco_ap50", "coco_ap", "voc_ap_2007", "voc_ap_2010")
    rows = [all_row(metrics), *(row for row in class_rows(metrics) if row["labels"] or every_class)]
    width = max(len(str(row["name"])) for row in rows)
    groups = (_GROUPS[1].format(metrics.darknet.iou_thresh, metrics.darknet.conf_thresh), *_GROUPS[2:])
    lines = [" " * (width + 18) + f"{groups[0]:^51}{groups[1]:^16}{groups[2]:^16}".rstrip()]
    lines.append(f"{'class':<{width}}" + "".join(f"{column:>9}" for column in _COLUMNS[:2])
                 + "".join(f"{column:>{_width(column)}}" for column in _COLUMNS[2:]))  # fmt: skip
    for row in rows:
        counts = f"{row['images']:>9}{row['labels']:>9}"
        cells = (_cell(row[key], _width(column)) for key, column in zip(keys, _COLUMNS[2:], strict=True))
        lines.append(f"{row['name']:<{width}}{counts}{''.join(cells)}")
    return "\n".join(lines)


def _width(column: str) -> int:
    return 9 if column.startswith("mAP") else 8


def _cell(value: float | None, width: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}.4f}"


def coco_text(coco: CocoResult) -> str:
    """The twelve numbers in two lines."""
    values = [f"{name} {value:.4f}" for name, value in coco.statistics.items()]
    return f"COCO: {', '.join(values[:6])}\n      {', '.join(values[6:])}"


def darknet_text(darknet: DarknetMap, names: Sequence[str], points: int) -> str:
    """What the original prints at the end of `detector map`, word for word, for scripts that parse it."""
    d = darknet
    aps = d.average_precisions(points)
    lines = [f"\n detections_count = {len(d.ranked.scores)}, unique_truth_count = {int(d.ranked.totals.sum())}  "]
    for i, name in enumerate(names):
        counts = f"(TP = {d.true_positives[i]}, FP = {d.false_positives[i]})"
        lines.append(f"class_id = {i}, name = {name}, ap = {aps[i] * 100:2.2f}%   \t {counts} ")
    threshold = d.conf_thresh
    precision = _c_ratio(d.tp, d.tp + d.fp)
    recall = _c_ratio(d.tp, d.tp + d.fn)
    f1 = _c_ratio(2 * d.precision * d.recall, d.precision + d.recall)
    lines.append(f"\n for conf_thresh = {threshold:1.2f}, precision = {precision}, recall = {recall}, F1-score = {f1} ")
    lines.append(
        f" for conf_thresh = {threshold:0.2f}, TP = {d.tp}, FP = {d.fp}, FN = {d.fn}, "
        f"average IoU = {d.average_iou * 100:2.2f} % "
    )
    used = f"used {points} Recall-points " if points else "used Area-Under-Curve for each unique Recall "
    mean = float(aps.mean()) if len(aps) else 0.0
    lines.append(f"\n IoU threshold = {d.iou_thresh * 100:2.0f} %, {used}")
    shown = f"mAP@{d.iou_thresh:0.2f}"
    lines.append(f" mean average precision ({shown}) = {mean:f}, or {mean * 100:2.2f} % ")
    return "\n".join(lines)


def _c_ratio(part: float, whole: float) -> str:
    """Two decimals; "-nan" for 0 / 0, as the original prints it on the usual processors."""
    return f"{part / whole:1.2f}" if whole else "-nan"


def to_json(metrics: Metrics) -> dict[str, Any]:
    """The numbers of metrics.json; None where there is nothing to measure."""
    summary = all_row(metrics)
    names = {
        "darknet": ("precision", "recall", "f1", "average_iou", "tp", "fp", "fn"),
        "aps": ("darknet_ap_area", "darknet_ap_11", "darknet_ap_101"),
    }
    d = metrics.darknet
    return {
        "images": metrics.images,
        "labels": summary["labels"],
        "darknet": {
            "iou_thresh": d.iou_thresh,
            "conf_thresh": d.conf_thresh,
            **{key: summary[key] for key in names["darknet"]},
            **{key.replace("darknet_ap", "map"): summary[key] for key in names["aps"]},
        },
        "coco": {name: value if value >= 0 else None for name, value in metrics.coco.statistics.items()},
        "voc": {"map_2007": _number(metrics.voc.map_2007), "map_2010": _number(metrics.voc.map_2010)},
        "best_f1_confidence": metrics.curves.best_threshold,
        "classes": class_rows(metrics),
    }


def images_per_class(class_ids: Sequence[Ints], classes: int) -> Ints:
    """(classes,) how many images hold an object of each class, from the ids of every image."""
    counts = np.zeros(classes, np.int64)
    for ids in class_ids:
        counts[np.unique(ids[ids < classes])] += 1
    return counts

"""From detections and ground truth to every protocol's numbers, and to files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.metrics.coco import coco_ap, result_rows
from evaluation.metrics.confusion import confusion
from evaluation.metrics.curves import confidence_curves
from evaluation.metrics.darknet import darknet_map
from evaluation.metrics.report import Metrics, images_per_class, to_json
from evaluation.metrics.voc import voc_ap
from evaluation.plots import plot_confusion, plot_curve
from utils.detections import Detections, GroundTruth
from utils.files import write_text


def measure(
    found: Sequence[Detections],
    truths: Sequence[GroundTruth],
    names: tuple[str, ...],
    image_ids: Sequence[int],
    category_ids: Sequence[int],
    *,
    conf_thresh: float = 0.25,
) -> tuple[Metrics, list[dict[str, Any]]]:
    """All protocols on the same detections, and COCO's result rows; images in the same order everywhere.

    conf_thresh: the confidence of precision, recall and confusion.
    """
    rows = result_rows(found, image_ids, category_ids)
    darknet = darknet_map(found, truths, len(names), conf_thresh=conf_thresh)
    metrics = Metrics(
        names=names,
        images=len(found),
        images_per_class=images_per_class([t.class_ids[~(t.crowd | t.difficult)] for t in truths], len(names)),
        darknet=darknet,
        coco=coco_ap(rows, truths, image_ids, category_ids),
        voc=voc_ap(found, truths, len(names)),
        curves=confidence_curves(darknet.ranked),
        confusion=confusion(found, truths, len(names), conf_thresh=conf_thresh),
    )
    return metrics, rows


def write_metrics(folder: Path, metrics: Metrics, facts: dict[str, Any]) -> None:
    """metrics.json: `facts` about the run, then the numbers."""
    write_text(folder / "metrics.json", json.dumps({**facts, **to_json(metrics)}, indent=1) + "\n")


def write_plots(folder: Path, metrics: Metrics) -> None:
    """PR, F1, P and R curves and the confusion matrix. Raises InputError when matplotlib is not installed."""
    c, names = metrics.curves, metrics.names
    confidence = "confidence"
    plot_curve(folder / "PR_curve.png", c.recalls, c.precision_at_recall, names, x_label="recall", y_label="precision")
    plot_curve(folder / "F1_curve.png", c.thresholds, c.f1, names, x_label=confidence, y_label="F1")
    plot_curve(folder / "P_curve.png", c.thresholds, c.precision, names, x_label=confidence, y_label="precision")
    plot_curve(folder / "R_curve.png", c.thresholds, c.recall, names, x_label=confidence, y_label="recall")
    plot_confusion(folder / "confusion_matrix.png", metrics.confusion.matrix, names)

"""Quality and speed at one input size: metrics of three protocols for detectors, accuracy for classifiers."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.evaluation_set import make_classification_set
from data.image import read_image, save_image
from data.sources import open_data
from evaluation.doctor import checked_set, plots_wanted, save_report
from evaluation.metrics.coco import result_rows
from evaluation.metrics.report import Metrics, coco_text, darknet_text, table, to_json
from evaluation.metrics.voc import write_results
from evaluation.options import EvaluationOptions, counted_confidence, make_model, one_confidence
from evaluation.plots import plot_confusion, plot_curve
from evaluation.run import (
    measure_accuracy,
    measure_predictions,
    nms_of,
    predict_set,
    require_complete,
    speed_text,
    submitted,
)
from inference.predictor import Classifier, Model, TenCropClassifier
from inference.results import FileNames, label_text
from utils.detections import Detections, GroundTruth
from utils.draw import comparison
from utils.errors import InputError
from utils.files import run_folder, write_text

WORST = 8


def validate(settings: EvaluationOptions) -> None:
    """Measure quality and speed at one input size and confidence threshold; for a classifier, its accuracy."""
    confidence, counted = one_confidence(settings), counted_confidence(settings)
    model = make_model(settings)
    if isinstance(model, Classifier):
        _validate_classifier(settings, model)
    elif settings.ten_crop:
        raise InputError("--ten-crop: works only with classifiers, the model is a detector")
    else:
        _validate_detector(settings, model, confidence, counted)


def _validate_detector(settings: EvaluationOptions, model: Model, confidence: float, counted: float) -> None:
    evaluation_set, checked = checked_set(settings, model)
    folder = run_folder(settings.project, settings.name, exist_ok=settings.exist_ok)
    nms = nms_of(settings, confidence)
    predictions = predict_set(settings, model, evaluation_set.images, nms)
    if not evaluation_set.dataset.labelled:
        found, image_ids = submitted(predictions, nms.valid), evaluation_set.image_ids(predictions.indices)
        rows = result_rows(found, image_ids, evaluation_set.category_ids)
        write_text(folder / "results.json", json.dumps(rows) + "\n")
        print(f"No annotations to evaluate against: {len(rows)} detections saved to {folder / 'results.json'}")
        require_complete(evaluation_set.images, predictions)
        return
    start = time.perf_counter()
    metrics, rows, ground_truth = measure_predictions(
        predictions, evaluation_set, nms, iou_thresh=settings.match_iou, conf_thresh=counted
    )
    speed = predictions.statistics.milliseconds()
    speed |= {"metrics": 1000 * (time.perf_counter() - start) / max(1, len(ground_truth))}
    keys = ("cfg", "weights", "data", "split", "iou_thres", "letter_box")
    facts: dict[str, Any] = {
        **{key: getattr(settings, key) for key in keys},
        "input": list(model.size_wh),
        "engine": model.engine,
        "complete": len(predictions.indices) == len(evaluation_set.images),
        "unreadable": predictions.unreadable,
        "conf_thres": confidence,
        "speed_ms": speed,
        "findings": checked.counts,
    }
    write_text(folder / "metrics.json", json.dumps({**facts, **to_json(metrics)}, indent=1) + "\n")
    if settings.save_json:
        write_text(folder / "results.json", json.dumps(rows) + "\n")
    paths = [evaluation_set.images[index] for index in predictions.indices]
    if settings.save_voc:
        images = zip(paths, predictions.sizes_wh, submitted(predictions, nms.valid), strict=True)
        write_results(folder / "results", images, evaluation_set.names)
    if settings.save_txt or settings.save_conf:
        names = FileNames()
        for path, size_wh, detections in zip(paths, predictions.sizes_wh, predictions.found[nms.map], strict=True):
            text = label_text(detections, size_wh, with_scores=settings.save_conf)
            write_text(folder / "labels" / f"{names.of_source(str(path))}.txt", text)
    if settings.print == "darknet":
        print(darknet_text(metrics.darknet, metrics.names, settings.points))
    else:
        print(f"{table(metrics, every_class=settings.verbose)}\n{coco_text(metrics.coco)}")
    print(speed_text(model, speed))
    save_report(folder, checked, settings)
    if plots_wanted(settings):
        _save_plots(folder, metrics)
        _save_worst(folder / "worst", paths, predictions.found[nms.map], ground_truth, metrics)
    print(f"Results saved to {folder}")
    require_complete(evaluation_set.images, predictions)


def _save_plots(folder: Path, metrics: Metrics) -> None:
    """Plot PR, F1, P and R curves and the confusion matrix. Raises InputError if matplotlib is not installed."""
    c, names = metrics.curves, metrics.names
    confidence = "confidence"
    plot_curve(folder / "PR_curve.png", c.recalls, c.precision_at_recall, names, x_label="recall", y_label="precision")
    plot_curve(folder / "F1_curve.png", c.thresholds, c.f1, names, x_label=confidence, y_label="F1")
    plot_curve(folder / "P_curve.png", c.thresholds, c.precision, names, x_label=confidence, y_label="precision")
    plot_curve(folder / "R_curve.png", c.thresholds, c.recall, names, x_label=confidence, y_label="recall")
    plot_confusion(folder / "confusion_matrix.png", metrics.confusion.matrix, names)


def _save_worst(
    folder: Path,
    images: Sequence[Path],
    found: Sequence[Detections],
    ground_truth: Sequence[GroundTruth],
    metrics: Metrics,
) -> None:
    """Save labels next to predictions for the images that lose the most recall."""
    confusion = metrics.confusion
    for rank, i in enumerate(confusion.worst(WORST).tolist(), 1):
        confident = found[i].scores > np.float32(confusion.conf_thresh)
        hits, right = confusion.hits[i], confusion.right[i][confident]
        image, shown = read_image(images[i]), found[i].select(confident)
        sheet = comparison(image, ground_truth[i], shown, metrics.names, hits, right)
        save_image(folder / f"{rank}_{images[i].stem}.jpg", sheet)


def _validate_classifier(settings: EvaluationOptions, model: Classifier) -> None:
    """Measure top-1 and top-k accuracy (classifier.c validate_classifier_single)."""
    if settings.ten_crop:
        if settings.augment:
            raise InputError(
                "--ten-crop and --augment cannot be combined: the ten crops already include mirrored images"
            )
        half = model.dtype == torch.float16
        model = TenCropClassifier(model.network, model.device, names=model.names, half=half)
    split = settings.split or "val"
    dataset = open_data(settings.data, split, names=settings.names)
    evaluation_set = make_classification_set(dataset, split, model.classes, model.network.plan.cfg.path)
    folder = run_folder(settings.project, settings.name, exist_ok=settings.exist_ok)
    predictions = predict_set(settings, model, evaluation_set.images)
    accuracy = measure_accuracy(predictions, evaluation_set)
    if settings.print == "darknet":
        last = len(accuracy.ranks) - 1
        print(f"{last}: top 1: {accuracy.top(1):f}, top {accuracy.k}: {accuracy.top(accuracy.k):f}")
    else:
        print(accuracy.table())
    print(speed_text(model, predictions.statistics.milliseconds()))
    facts = {key: getattr(settings, key) for key in ("cfg", "weights", "data", "split", "ten_crop")}
    facts |= {"engine": model.engine, "unreadable": predictions.unreadable, **accuracy.to_json()}
    write_text(folder / "metrics.json", json.dumps(facts, indent=1) + "\n")
    (found,) = predictions.found.values()
    rows = zip(predictions.indices, accuracy.predicted.tolist(), found, strict=True)
    lines = [f"{evaluation_set.images[i]}\t{evaluation_set.names[best]}\t{of[best]:.6f}\n" for i, best, of in rows]
    write_text(folder / "predictions.tsv", "".join(lines))
    if plots_wanted(settings):
        plot_confusion(folder / "confusion_matrix.png", accuracy.matrix(), evaluation_set.names)
    print(f"Results saved to {folder}")
    require_complete(evaluation_set.images, predictions)

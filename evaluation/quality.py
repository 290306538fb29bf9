"""Quality and speed at one input size, by three protocols, with what explains the numbers."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.evaluation_set import EvaluationSet
from data.image import read_image, save_image
from evaluation.classification import measure_classes
from evaluation.doctor import examined, plots_wanted, save_diagnosis
from evaluation.measure import measure, write_metrics, write_plots
from evaluation.metrics.report import Metrics, coco_text, darknet_text, table
from evaluation.options import EvaluationOptions, one_confidence, one_size
from evaluation.run import Pass, by, make_model, outcome, run_pass, speed_text
from inference.classifier import Classifier
from inference.predictor import Predictor
from inference.results import label_text
from utils.detections import GroundTruth
from utils.draw import comparison
from utils.files import run_folder, write_text

WORST = 8


def validate(settings: EvaluationOptions) -> int:
    """Measure quality and speed at one size and confidence; of a classifier its accuracy."""
    confidence = one_confidence(settings)
    predictor = make_model(settings, one_size(settings))
    if isinstance(predictor, Classifier):
        return measure_classes(settings, predictor)
    exam, diagnosis = examined(settings, predictor)
    folder = run_folder(settings.project, settings.name, exist_ok=settings.exist_ok)
    found = run_pass(settings, predictor, exam.images, [confidence])
    start = time.perf_counter()
    truths = [exam.ground_truth(i, found.sizes_wh[i]) for i in found.order]
    image_ids = exam.image_ids(found.order)
    metrics, rows = measure(found.detections(0), truths, exam.names, image_ids, exam.category_ids)
    speed = found.milliseconds() | {"measuring": 1000 * (time.perf_counter() - start) / max(1, len(truths))}
    facts = _facts(settings, exam, predictor, found) | {"conf_thres": confidence, "speed_ms": speed}
    write_metrics(folder, metrics, facts | {"findings": diagnosis.counts})
    if settings.save_json:
        write_text(folder / "results.json", json.dumps(rows) + "\n")
    if settings.save_txt:
        _save_labels(folder / "labels", exam, found, settings.save_conf)
    _print_metrics(settings, metrics)
    print(f"Speed: {speed_text(speed)} an image of {by(predictor.size_wh)}")
    save_diagnosis(folder, diagnosis, settings)
    if plots_wanted(settings):
        write_plots(folder, metrics)
        _save_worst(folder / "worst", exam, found, truths, metrics)
    print(f"Results saved to {folder}")
    return outcome(exam.images, found)


def _facts(settings: EvaluationOptions, exam: EvaluationSet, predictor: Predictor, found: Pass) -> dict[str, Any]:
    """What was measured, on what, and whether all of it."""
    return {
        **{key: getattr(settings, key) for key in ("cfg", "weights", "data", "split", "iou_thres", "letter_box")},
        "input": list(predictor.size_wh),
        "complete": len(found.order) == len(exam.images),
        "unreadable": {str(exam.images[i]): text for i, text in sorted(found.failures.items())},
    }


def _save_labels(folder: Path, exam: EvaluationSet, found: Pass, with_scores: bool) -> None:
    for i, detections in zip(found.order, found.detections(0), strict=True):
        text = label_text(detections, found.sizes_wh[i], with_scores=with_scores)
        write_text(folder / f"{exam.images[i].stem}.txt", text)


def _save_worst(
    folder: Path, exam: EvaluationSet, found: Pass, truths: Sequence[GroundTruth], metrics: Metrics
) -> None:
    """Labels beside predictions for the images that lose most recall."""
    confusion, detections = metrics.confusion, found.detections(0)
    for place, i in enumerate(confusion.worst(WORST).tolist(), 1):
        path = exam.images[found.order[i]]
        sure = detections[i].scores > np.float32(confusion.conf_thresh)
        hits, right = confusion.hits[i], confusion.right[i][sure]
        sheet = comparison(read_image(path, 3), truths[i], detections[i].select(sure), exam.names, hits, right)
        save_image(folder / f"{place}_{path.stem}.jpg", sheet)


def _print_metrics(settings: EvaluationOptions, metrics: Metrics) -> None:
    if settings.print == "darknet":
        print(darknet_text(metrics.darknet, metrics.names, settings.points))
    else:
        print(f"{table(metrics, every_class=settings.verbose)}\n{coco_text(metrics.coco)}")

"""Quality against latency, and latency alone."""

from __future__ import annotations

import json
import time
from typing import Any

from data.sources import open_data
from evaluation.doctor import examined, plots_wanted
from evaluation.measure import measure
from evaluation.metrics.report import Metrics
from evaluation.options import EvaluationOptions, one_confidence, one_size
from evaluation.plots import plot_study
from evaluation.run import by, make_predictor, outcome, run_pass, speed_text
from utils.errors import InputError
from utils.files import run_folder, write_text

CONFIDENCES = (0.001, 0.01, 0.1, 0.25)


def study(settings: EvaluationOptions) -> int:
    """Quality against latency over input sizes and confidences."""
    confidences = settings.conf_thres or CONFIDENCES
    cfg_size = 0 if settings.img_size else make_predictor(settings, ()).size_wh[0]
    sizes = settings.img_size or [cfg_size * k // 4 // 32 * 32 for k in (2, 3, 4, 5)]
    rows: list[dict[str, Any]] = []
    predictor = make_predictor(settings, sizes[:1])
    exam, _ = examined(settings, predictor)
    folder = run_folder(settings.project, settings.name, exist_ok=settings.exist_ok)
    for size in sizes:
        predictor = make_predictor(settings, [size])
        found = run_pass(settings, predictor, exam.images, confidences)
        truths = [exam.ground_truth(i, found.sizes_wh[i]) for i in found.order]
        for way, conf in enumerate(confidences):
            detections = found.detections(way)
            metrics, _ = measure(detections, truths, exam.names, exam.image_ids(found.order), exam.category_ids)
            rows.append(_row(size, conf, metrics, found.milliseconds(way)))
            print(_text(rows[-1]))
        write_text(folder / "study.json", json.dumps(rows, indent=1) + "\n")
        if found.interrupted:
            break
    if plots_wanted(settings):
        plot_study(folder / "study.png", rows)
    print(f"Results saved to {folder}")
    return outcome(exam.images, found)


def _row(size: int, conf: float, metrics: Metrics, speed: dict[str, float]) -> dict[str, Any]:
    return {
        "size": size,
        "conf_thres": conf,
        "ap": metrics.coco.statistics["AP"],
        "ap50": metrics.coco.statistics["AP50"],
        "darknet_map_area": metrics.darknet.mean_average_precision(),
        "ms": speed["network"] + speed["boxes"],
        "speed_ms": speed,
    }


def _text(row: dict[str, Any]) -> str:
    return (
        f"{row['size']:>5} px, confidence {row['conf_thres']:<5g}: AP {row['ap']:.4f}, AP50 {row['ap50']:.4f}, "
        f"Darknet {row['darknet_map_area']:.4f}, network and boxes {row['ms']:.1f} ms"
    )


def speed(settings: EvaluationOptions) -> int:
    """Time only: no labels are read, nothing is measured but the clock."""
    predictor = make_predictor(settings, one_size(settings))
    split = settings.split or "val"
    images = open_data(settings.data, split, names=settings.names).splits[split]
    if not images:
        raise InputError(f"{settings.data}: no images in split '{split}'")
    folder = run_folder(settings.project, settings.name, exist_ok=settings.exist_ok)
    start = time.perf_counter()
    found = run_pass(settings, predictor, images, [one_confidence(settings)])
    rate = len(found.order) / (time.perf_counter() - start)
    times = found.milliseconds()
    facts: dict[str, Any] = {"cfg": settings.cfg, "input": list(predictor.size_wh), "batch_size": settings.batch_size}
    facts |= {"device": str(predictor.device), "images": len(found.order), "images_per_second": rate}
    write_text(folder / "speed.json", json.dumps(facts | {"speed_ms": times}, indent=1) + "\n")
    print(f"Speed: {speed_text(times)} an image of {by(predictor.size_wh)}; {rate:.1f} images a second in all")
    print(f"Results saved to {folder}")
    return outcome(images, found)

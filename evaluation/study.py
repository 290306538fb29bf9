"""Measurement of quality against latency, and of latency alone."""

from __future__ import annotations

import json
import time
from typing import Any

from data.sources import open_data
from evaluation.doctor import checked_set, plots_wanted
from evaluation.metrics.report import Metrics
from evaluation.options import EvaluationOptions, make_model, one_confidence
from evaluation.plots import plot_study
from evaluation.run import measure_predictions, nms_of, predict_set, require_complete, speed_text
from inference.predictor import Model
from utils.errors import InputError
from utils.files import run_folder, write_text

CONFIDENCES = (0.001, 0.01, 0.1, 0.25)


def study(settings: EvaluationOptions) -> None:
    """Measure quality and latency over input sizes and confidence thresholds."""
    confidences = settings.conf_thres or CONFIDENCES
    protocols = [nms_of(settings, conf) for conf in confidences]
    sizes = settings.img_size or [make_model(settings).size_wh[0] * k // 4 // 32 * 32 for k in (2, 3, 4, 5)]
    rows: list[dict[str, Any]] = []
    model = make_model(settings, sizes[0])
    evaluation_set, _ = checked_set(settings, model)
    folder = run_folder(settings.project, settings.name, exist_ok=settings.exist_ok)
    for size in sizes:
        model = make_model(settings, size)
        predictions = predict_set(settings, model, evaluation_set.images, [each for nms in protocols for each in nms])
        for conf, nms in zip(confidences, protocols, strict=True):
            metrics = measure_predictions(predictions, evaluation_set, nms, iou_thresh=settings.match_iou).metrics
            rows.append(_row(model, conf, metrics, predictions.statistics.milliseconds(nms.map)))
            print(_text(rows[-1]))
        write_text(folder / "study.json", json.dumps(rows, indent=1) + "\n")
        if predictions.statistics.interrupted:
            break
    if plots_wanted(settings):
        plot_study(folder / "study.png", rows)
    print(f"Results saved to {folder}")
    require_complete(evaluation_set.images, predictions)


def _row(model: Model, conf: float, metrics: Metrics, speed: dict[str, float]) -> dict[str, Any]:
    return {
        "size": model.size_wh[0],
        "engine": model.engine,
        "conf_thres": conf,
        "ap": metrics.coco.statistics["AP"],
        "ap50": metrics.coco.statistics["AP50"],
        "darknet_map_area": metrics.darknet.mean_average_precision(),
        "ms": speed["inference"] + speed["postprocess"],
        "speed_ms": speed,
    }


def _text(row: dict[str, Any]) -> str:
    return (
        f"{row['size']:>5} px, confidence {row['conf_thres']:<5g}: AP {row['ap']:.4f}, AP50 {row['ap50']:.4f}, "
        f"Darknet {row['darknet_map_area']:.4f}, inference and NMS {row['ms']:.1f} ms"
    )


def speed(settings: EvaluationOptions) -> None:
    """Measure time only, without reading labels."""
    model = make_model(settings)
    split = settings.split or "val"
    images = open_data(settings.data, split, names=settings.names).splits[split]
    if not images:
        raise InputError(f"{settings.data}: no images in split '{split}'")
    folder = run_folder(settings.project, settings.name, exist_ok=settings.exist_ok)
    nms = nms_of(settings, one_confidence(settings))
    start = time.perf_counter()
    predictions = predict_set(settings, model, images, nms)
    rate = len(predictions.indices) / (time.perf_counter() - start)
    times = predictions.statistics.milliseconds()
    facts = {
        "cfg": settings.cfg,
        "input": list(model.size_wh),
        "batch_size": settings.batch_size,
        "device": str(model.device),
        "engine": model.engine,
        "images": len(predictions.indices),
        "images_per_second": rate,
        "speed_ms": times,
    }
    write_text(folder / "speed.json", json.dumps(facts, indent=1) + "\n")
    print(f"{speed_text(model, times)}; {rate:.1f} images/s overall")
    print(f"Results saved to {folder}")
    require_complete(images, predictions)

"""COCO's protocol: the twelve numbers of pycocotools, or of faster-coco-eval if that is installed.

Finding a crowd is neither right nor wrong. Difficult objects are treated as ordinary ones; COCO has no such flag.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.metrics.matching import Floats, class_totals
from utils.detections import Detections, GroundTruth
from utils.errors import RunError

STATISTICS = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoResult:
    """Result of COCO's protocol.

    statistics: the twelve numbers by name; -1 if nothing could be measured.
    ap, ap50: (classes,) average precision over IoU 0.50 to 0.95, and at 0.50; NaN for a class without objects.
    """

    statistics: dict[str, float]
    ap: Floats
    ap50: Floats


def result_rows(
    found: Sequence[Detections], image_ids: Sequence[int], category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return COCO's results: image_id, category_id, bbox (left, top, width, height in pixels, to 1e-3), score (to 1e-6)."""
    rows: list[dict[str, Any]] = []
    for each, image_id in zip(found, image_ids, strict=True):
        xyxy = each.xyxy.astype(np.float64)
        xywh = np.round(np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1), 3).tolist()
        scores = np.round(each.scores.astype(np.float64), 6).tolist()
        for class_id, bbox, score in zip(each.class_ids.tolist(), xywh, scores, strict=True):
            category = category_ids[class_id]
            rows.append({"image_id": image_id, "category_id": category, "bbox": bbox, "score": score})
    return rows


def coco_ap(
    rows: list[dict[str, Any]],
    ground_truth: Sequence[GroundTruth],
    image_ids: Sequence[int],
    category_ids: Sequence[int],
) -> CocoResult:
    """Measure `result_rows` against the ground truth; other tools report the same for a `results.json` of these rows.

    Raises RunError if neither faster-coco-eval nor pycocotools is installed.
    """
    coco_class, eval_class = _tool()
    truth_set = coco_class()
    truth_set.dataset = _truth_json(ground_truth, image_ids, category_ids)
    with contextlib.redirect_stdout(io.StringIO()):
        truth_set.createIndex()
        if not rows or not truth_set.dataset["annotations"]:
            return _nothing(ground_truth, len(category_ids))
        evaluation = eval_class(truth_set, truth_set.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # IoU, recall, class; any area, 100 detections
    return CocoResult(
        statistics=dict(zip(STATISTICS, map(float, evaluation.stats), strict=False)),
        ap=_class_means(precision),
        ap50=_class_means(precision[:1]),
    )


def _tool() -> tuple[Any, Any]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster

        logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)  # suppress its table
        return COCO, COCOeval_faster
    except ImportError:
        pass
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise RunError("COCO metrics need faster-coco-eval or pycocotools: pip install pycocotools") from None
    return COCO, COCOeval


def _truth_json(
    ground_truth: Sequence[GroundTruth], image_ids: Sequence[int], category_ids: Sequence[int]
) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for labels, image_id in zip(ground_truth, image_ids, strict=True):
        images.append({"id": image_id, "width": labels.size_wh[0], "height": labels.size_wh[1]})
        # rounded, because converting labels to relative coordinates and back changes the 13th digit
        xywh = np.round(np.concatenate([labels.xyxy[:, :2], labels.xyxy[:, 2:] - labels.xyxy[:, :2]], axis=1), 9)
        for class_id, bbox, area, crowd in zip(
            labels.class_ids.tolist(), xywh.tolist(), labels.areas_px.tolist(), labels.crowd.tolist(), strict=True
        ):
            if class_id < len(category_ids):
                boxes.append(
                    {
                        "id": len(boxes) + 1,
                        "image_id": image_id,
                        "category_id": category_ids[class_id],
                        "bbox": bbox,
                        "area": area,
                        "iscrowd": int(crowd),
                    }
                )
    return {
        "info": {},
        "images": images,
        "annotations": boxes,
        "categories": [{"id": category_id, "name": str(category_id)} for category_id in category_ids],
    }


def _class_means(precision: Floats) -> Floats:
    """Return the mean (classes,) of (IoU, recall, class) over the first two; a class without objects has -1 everywhere."""
    means = precision.mean(axis=(0, 1))
    means[(precision < 0).any(axis=(0, 1))] = np.nan
    return means


def _nothing(ground_truth: Sequence[GroundTruth], classes: int) -> CocoResult:
    """Return the result without detections (all 0) or without objects (nothing to measure)."""
    present = class_totals(ground_truth, [~labels.crowd for labels in ground_truth], classes) > 0
    value = 0.0 if present.any() else -1.0
    ap = np.where(present, 0.0, np.nan)
    return CocoResult(statistics=dict.fromkeys(STATISTICS, value), ap=ap, ap50=ap.copy())

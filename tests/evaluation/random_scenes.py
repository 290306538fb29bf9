"""Random ground truth, and plausible detections for it."""

from __future__ import annotations

import numpy as np

from utils.detections import Detections, GroundTruth


def truth_of(
    xyxy: list, class_ids: list[int], *, crowd: list[int] | None = None, difficult: list[int] | None = None
) -> GroundTruth:
    """Ground truth of an image of 100 x 100 pixels."""
    box = np.asarray(xyxy, np.float64).reshape(-1, 4)
    n = len(class_ids)
    return GroundTruth(
        xyxy=box,
        class_ids=np.asarray(class_ids, np.int64),
        crowd=np.asarray(crowd or [0] * n, np.bool_),
        difficult=np.asarray(difficult or [0] * n, np.bool_),
        areas_px=(box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]),
        size_wh=(100, 100),
    )


def found_of(xyxy: list, scores: list[float], class_ids: list[int]) -> Detections:
    order = np.argsort(-np.asarray(scores), kind="stable")
    box = np.asarray(xyxy, np.float32).reshape(-1, 4)
    return Detections(
        xyxy=box[order],
        scores=np.asarray(scores, np.float32)[order],
        class_ids=np.asarray(class_ids, np.int64)[order],
    )


def random_scene(seed: int, images: int = 12, classes: int = 4) -> tuple[list[Detections], list[GroundTruth]]:
    """Objects, some of them crowd or difficult; detections near them, duplicates, wrong classes, and false positives."""
    rng = np.random.default_rng(seed)
    found, truths = [], []
    for _ in range(images):
        n = int(rng.integers(0, 7))
        low = rng.uniform(0, 70, (n, 2))
        box = np.concatenate([low, low + rng.uniform(5, 30, (n, 2))], axis=1)
        ids = rng.integers(0, classes - 1, n)  # the last class has no objects
        truths.append(
            truth_of(
                box.tolist(),
                ids.tolist(),
                crowd=(rng.random(n) < 0.1).tolist(),
                difficult=(rng.random(n) < 0.2).tolist(),
            )
        )
        near = np.repeat(box, 2, axis=0) + rng.normal(0, 2.5, (2 * n, 4))
        near_ids = np.where(rng.random(2 * n) < 0.8, np.repeat(ids, 2), rng.integers(0, classes, 2 * n))
        low = rng.uniform(0, 80, (5, 2))
        stray = np.concatenate([low, low + rng.uniform(2, 20, (5, 2))], axis=1)
        boxes = np.concatenate([near, stray])
        scores = np.round(rng.random(len(boxes)) ** 2, 2)  # rounded, so that equal scores are likely
        all_ids = np.concatenate([near_ids, rng.integers(0, classes, 5)])
        found.append(found_of(boxes.tolist(), scores.tolist(), all_ids.tolist()))
    return found, truths

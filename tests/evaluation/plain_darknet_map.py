"""A slow and simple version of the original's `detector map`, box by box and rank by rank, for comparison."""

from __future__ import annotations

from collections.abc import Sequence

from utils.detections import Detections, GroundTruth


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def plain_map(
    found: Sequence[Detections], truths: Sequence[GroundTruth], classes: int, points: int, iou_thresh: float = 0.5
) -> tuple[list[float], list[int], list[int], float]:
    """Per class, average precision, true positives and false positives above 0.25; and the average IoU."""
    ranking = []
    tp, fp, iou_sum = [0] * classes, [0] * classes, 0.0
    totals = [0] * classes
    for image, (detections, truth) in enumerate(zip(found, truths, strict=True)):
        objects = [
            (i, c, b) for i, (c, b) in enumerate(zip(truth.class_ids.tolist(), truth.xyxy.tolist(), strict=True))
        ]
        hard = [o for o in objects if truth.difficult[o[0]]]
        objects = [o for o in objects if not truth.difficult[o[0]] and not truth.crowd[o[0]]]
        for _, class_id, _ in objects:
            totals[class_id] += 1
        seen = []
        for box, score, class_id in detections:
            if score <= 0.005:
                continue
            best, best_iou = None, 0.0
            for i, object_class, object_box in objects:
                iou = overlap(box.tolist(), object_box)
                if object_class == class_id and iou > iou_thresh and iou > best_iou:
                    best, best_iou = (image, i), iou
            taken_back = best is None and any(
                c == class_id and overlap(box.tolist(), b) > iou_thresh for _, c, b in hard
            )
            if score > 0.25:
                if best is not None and best not in seen:
                    tp[class_id] += 1
                    iou_sum += best_iou
                else:
                    fp[class_id] += 1
            if not taken_back:
                seen.append(best)
                ranking.append((score, class_id, best))
    ranking.sort(key=lambda entry: -entry[0])
    aps = [_average_precision([e for e in ranking if e[1] == c], totals[c], points) for c in range(classes)]
    return aps, tp, fp, iou_sum / max(1, sum(tp) + sum(fp))


def _average_precision(ranking: list, total: int, points: int) -> float:
    if not ranking:
        return 0.0
    recalls, precisions, used, right = [], [], set(), 0
    for number, (_, _, match) in enumerate(ranking, 1):
        if match is not None and match not in used:
            used.add(match)
            right += 1
        recalls.append(right / total if total else 0.0)
        precisions.append(right / number)
    if points:
        return (
            sum(
                max((p for r, p in zip(recalls, precisions, strict=True) if r >= k * (1 / (points - 1))), default=0.0)
                for k in range(points)
            )
            / points
        )
    area, last_recall, last_precision = 0.0, recalls[-1], precisions[-1]
    for recall, precision in zip(recalls[-2::-1], precisions[-2::-1], strict=True):
        last_precision = max(last_precision, precision)
        area += (last_recall - recall) * last_precision
        last_recall = recall
    return area + last_recall * last_precision

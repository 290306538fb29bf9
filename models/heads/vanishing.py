"""What self-adversarial training wants a head to say: nothing is here (yolo_layer.c process_batch, gaussian_yolo_layer.c
forward_gaussian_yolo_layer, where `state.net.adversarial` is set and there are no truths)."""

from __future__ import annotations

import torch
from torch import Tensor

from models.heads.anchor_loss import CLASS_THRESHOLD, Boxes, put
from models.heads.grid import grid_of, places_where, rows_at


def vanishing_delta(
    cells: Tensor, at: int, boxes: Boxes, size_wh: tuple[int, int], *, obj_normalizer: float, distort: bool
) -> Tensor:
    """Delta (n, anchors, entries, h, w) for outputs `cells` of that shape. at: entry of the objectness.

    Every box becomes less of an object, and less of the classes it is sure of, in proportion to the root of its area.
    distort: those that are sure of a class become more of all others, and their coordinates shrink to zero.
    """
    places = places_where(torch.ones_like(cells[:, :, at], dtype=torch.bool))
    rows = rows_at(cells, places)
    found = boxes(rows[:, :at], places, grid_of(cells), size_wh)
    scale = (found[:, 2] * found[:, 3]).sqrt()[:, None]
    objectness, classes = rows[:, at : at + 1], rows[:, at + 1 :]
    scores = classes * objectness
    sure = scores > CLASS_THRESHOLD
    delta = torch.zeros_like(rows)
    delta[:, at : at + 1] = -scale * obj_normalizer * objectness
    delta[:, at + 1 :] = torch.where(sure, -scale * classes, 0.0)
    if distort:
        seen = sure.any(1, keepdim=True)
        others = seen & (scores < CLASS_THRESHOLD)
        delta[:, at + 1 :] += torch.where(others, scale * (1 - classes), 0.0)
        delta[:, :at] = torch.where(seen, -scale * rows[:, :at], 0.0)
    return put(torch.zeros_like(cells), places, delta)

"""The training loss of [detection] (detection_layer.c forward_detection_layer, data.c fill_truth_region)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from models.heads.base import HeadLoss, loss_value
from models.heads.matching import Truths, cells_of
from utils.boxes import iou

if TYPE_CHECKING:
    from models.heads.detection import DetectionSection, Parts

SMALL = 0.1  # forced: objects below this part of the picture belong to box 1
RANDOM_PICTURES = 64_000  # random: so many pictures long any box of a cell may learn its truth


class CellTruths(NamedTuple):
    """At most one truth a cell.

    present: bool (n, cells). classes: (n, cells, classes). box: (n, cells, 4), x, y in cells from the cell's corner, w, h in
    parts of the picture.
    """

    present: Tensor
    classes: Tensor
    box: Tensor


@dataclass(frozen=True)
class DetectionDelta:
    """delta: (n, values). squares: sums of its squares for boxes, objectness, classes. any_object: mean objectness of all boxes.

    measures: overlap, objectness, probability of the true class, of any class (k, 4) in cells with a truth.
    """

    delta: Tensor
    squares: Tensor
    measures: Tensor
    any_object: Tensor


def cell_truths(truths: Truths, pictures: int, side: int, classes: int) -> CellTruths:
    """Truths in the form of a grid; of several in one cell the first counts."""
    col, row = cells_of(truths.cxcywh_rel[:, :2], (side, side))
    cell = truths.image * side * side + row * side + col
    order = torch.arange(len(cell), device=cell.device)
    first = torch.full((pictures * side * side,), len(cell), device=cell.device)
    first = first.scatter_reduce(0, cell, order, "amin")
    present = first < len(cell)
    chosen = first[present]
    corner = torch.stack((col, row), 1)[chosen]
    boxes = truths.cxcywh_rel.new_zeros(len(first), 4)
    boxes[present] = torch.cat((truths.cxcywh_rel[chosen, :2] * side - corner, truths.cxcywh_rel[chosen, 2:]), 1)
    one_hot = boxes.new_zeros(len(first), classes)
    one_hot[present.nonzero()[:, 0], truths.class_ids[chosen]] = 1.0
    shape = (pictures, side * side)
    return CellTruths(present.view(shape), one_hot.view(*shape, -1), boxes.view(*shape, 4))


def detection_delta(section: DetectionSection, parts: Parts, truths: CellTruths, seen: int) -> DetectionDelta:
    """Delta for an output taken apart."""
    at = truths.present.nonzero(as_tuple=True)
    wanted, found = truths.box[at], parts.box[at]  # (k, 4), (k, num, 4)
    root = wanted[:, 2:].sqrt() if section.sqrt else wanted[:, 2:]
    overlap, chosen = _choose(section, found, wanted, seen)
    row = torch.arange(len(chosen), device=chosen.device)
    box = torch.zeros_like(parts.box)
    box[(*at, chosen)] = section.coord_scale * (torch.cat((wanted[:, :2], root), 1) - found[row, chosen])
    objectness = -section.noobject_scale * parts.objectness
    mine, best = parts.objectness[(*at, chosen)], overlap[row, chosen]
    goal = best if section.rescore else torch.ones_like(best)
    objectness[(*at, chosen)] = section.object_scale * (goal - mine)
    probabilities, target = parts.classes[at], truths.classes[at]
    classes = torch.zeros_like(parts.classes)
    classes[at] = section.class_scale * (target - probabilities)
    measures = torch.stack((best, mine, (probabilities * (target != 0)).sum(1), probabilities.mean(1)), 1)
    squares = torch.stack([each.square().sum() for each in (box, objectness, classes)])
    delta = torch.cat([each.flatten(1) for each in (classes, objectness, box)], 1)
    return DetectionDelta(delta, squares, measures, parts.objectness.mean())


def _choose(section: DetectionSection, found: Tensor, wanted: Tensor, seen: int) -> tuple[Tensor, Tensor]:
    """Overlap (k, num) of the boxes of a cell with its truth, and the box (k,) that learns it.

    The one that overlaps most, or if none does the one with the nearest values.
    """
    scale = wanted.new_tensor((1 / section.side, 1 / section.side, 1.0, 1.0))
    size = found[..., 2:].square() if section.sqrt else found[..., 2:]
    boxes = torch.cat((found[..., :2], size), 2) * scale
    truth = (wanted * scale)[:, None]
    overlap = iou(boxes, truth).nan_to_num(0.0)
    if section.random and seen < RANDOM_PICTURES:
        return overlap, torch.randint(section.num, (len(found),), device=found.device)
    if section.forced:
        return overlap, (wanted[:, 2] * wanted[:, 3] < SMALL).long()
    distance = (boxes - truth).square().sum(2)
    return overlap, torch.where((overlap > 0).any(1), overlap.argmax(1), distance.argmin(1))


def detection_loss(x: Tensor, result: DetectionDelta) -> HeadLoss:
    """The loss with the original's cost, the squares of all deltas."""
    count = len(result.measures)
    recall = (result.measures[:, :1] > 0.5).float()
    means = torch.cat((result.measures, recall), 1).sum(0) / max(count, 1)
    numbers = torch.cat((result.squares, result.any_object[None], means)).tolist()
    terms = dict(zip(("box", "objectness", "class"), numbers[:3], strict=True))
    names = ("no_object", "iou", "objectness", "class", "any_class", "recall50")
    cost = sum(numbers[:3])
    averages = dict(zip(names, numbers[3:], strict=True))
    return HeadLoss(loss_value(x, result.delta, result.delta.new_tensor(cost)), cost, terms, averages, count)

"""The steps that the losses of [yolo] and [Gaussian_yolo] share (yolo_layer.c process_batch and its twin).

A loss here is a delta: what the original adds to the head's input, by hand-written rules. First every box is taught to be
background unless it overlaps a truth, then the targets are taught in the order of the original, which matters where
several meet in one box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from models.heads.anchors import AnchorSection
from models.heads.class_rule import ClassRule
from models.heads.grid import Places, grid_of, places_where, rows_at
from models.heads.matching import Truths, assign, best_overlap, cells_of, share

Boxes = Callable[[Tensor, Places, tuple[int, int], tuple[int, int]], Tensor]  # GridHead.boxes

CLASS_THRESHOLD = 0.25  # compare_yolo_class: a box counts as an object's if it is surer than this of any class


class Found(NamedTuple):
    """Boxes that overlap a truth: their places, the row in Truths of the best truth, and the overlap with it."""

    places: Places
    truth: Tensor
    overlap: Tensor


@dataclass(frozen=True)
class Targets:
    """k boxes and the truths they are to learn, in the order in which they count: found ones, then assigned ones.

    places. truth: row in Truths (k,). class_ids: class to learn (k,). assigned: bool (k,), the anchor has the truth's shape.
    overlap: (k,), as found, 1 for assigned ones. rows: outputs (k, entries). found, wanted: boxes cxcywh_rel (k, 4).
    """

    places: Places
    truth: Tensor
    class_ids: Tensor
    assigned: Tensor
    overlap: Tensor
    rows: Tensor
    found: Tensor
    wanted: Tensor

    def __len__(self) -> int:
        return len(self.truth)


@dataclass(frozen=True)
class TargetDeltas:
    """What k targets teach, in the order in which they count.

    box: added to the box entries (k, entries before the objectness). objectness: new delta of the objectness (k,).
    yields: bool (k,), the objectness is left alone where it has a delta already. class_ids: (k,). class_value: delta of the
    class after the rule of classes, NaN where the rule's own stands (k,).
    """

    places: Places
    box: Tensor
    objectness: Tensor
    yields: Tensor
    class_ids: Tensor
    class_value: Tensor


def background(
    section: AnchorSection, cells: Tensor, at: int, truths: Truths, boxes: Boxes, size_wh: tuple[int, int]
) -> tuple[Tensor, Found, Found]:
    """Delta (n, anchors, entries, h, w) of "no object here" for all boxes, and those that overlap a truth.

    at: entry of the objectness. The first Found are boxes that are sure of some class and overlap more than ignore_thresh:
    their objectness is left alone. The second overlap more than truth_thresh and are to learn their truth.
    """
    sure = (cells[:, :, at + 1 :] > CLASS_THRESHOLD).any(2)
    looked_at = torch.ones_like(sure) if section.truth_thresh < 1 else sure
    if not truths.table.shape[1]:
        looked_at = torch.zeros_like(sure)
    places = places_where(looked_at)
    found = boxes(rows_at(cells[:, :, :at], places), places, grid_of(cells), size_wh)
    overlap, column = best_overlap(found, places.image, truths.table)
    ignored = sure[places.image, places.anchor, places.row, places.col] & (overlap > section.ignore_thresh)
    delta = torch.zeros_like(cells)
    objectness = -section.obj_normalizer * cells[:, :, at]
    objectness[_pick(places, ignored)] = 0.0
    delta[:, :, at] = objectness
    groups = []
    for chosen in (ignored, overlap > section.truth_thresh):
        some = _pick(places, chosen)
        groups.append(Found(some, truths.row_of[some.image, column[chosen]], overlap[chosen]))
    return delta, groups[0], groups[1]


def assigned(
    section: AnchorSection, truths: Truths, points_rel: Tensor, grid_wh: tuple[int, int], size_wh: tuple[int, int]
) -> Found:
    """Places of the boxes that must learn a truth because their anchor has its shape, in truth order, with overlap 1.

    points_rel: the points (n, 2) that decide each truth's cell.
    """
    sizes = points_rel.new_tensor(section.anchor_sizes) / points_rel.new_tensor(size_wh)
    wh = truths.cxcywh_rel[:, 2:]
    truth, position = assign(wh, sizes, section.indices, section.iou_thresh, section.iou_thresh_kind)
    col, row = cells_of(points_rel[truth], grid_wh)
    return Found(Places(truths.image[truth], position, row, col), truth, points_rel.new_ones(len(truth)))


def gather_targets(
    cells: Tensor,
    truths: Truths,
    found: Sequence[Found],
    own: Found,
    boxes: Boxes,
    class_map: Sequence[int] | None,
    size_wh: tuple[int, int],
) -> Targets:
    """Everything the rules ask about the targets; found: groups in the order in which they count, own: assigned ones."""
    groups = (*found, own)
    places = Places(*(torch.cat(each) for each in zip(*(group.places for group in groups), strict=True)))
    truth = torch.cat([group.truth for group in groups])
    ids = truths.class_ids[truth]
    if class_map is not None:
        ids = torch.tensor(class_map, device=ids.device)[ids]
    rows = rows_at(cells, places)
    order = torch.arange(len(truth), device=truth.device)
    return Targets(
        places,
        truth,
        ids,
        order >= len(truth) - len(own.truth),
        torch.cat([group.overlap for group in groups]),
        rows,
        boxes(rows, places, grid_of(cells), size_wh),
        truths.cxcywh_rel[truth],
    )


def teach(cells: Tensor, delta: Tensor, lessons: TargetDeltas, rule: ClassRule, at: int) -> tuple[Places, Tensor]:
    """Apply the lessons turn by turn; returns the places concerned and their delta (s, entries). `delta` is not changed."""
    shared = share(lessons.places, (len(cells), cells.shape[1], *cells.shape[3:]))
    rows, state = rows_at(cells, shared.places), rows_at(delta, shared.places)
    for turn in shared.turns():
        box = shared.box_of[turn]
        now = state[box]
        kept = lessons.yields[turn] & (now[:, at] != 0)
        objectness = torch.where(kept, now[:, at], lessons.objectness[turn])
        ids = lessons.class_ids[turn]
        classes = rule.apply(rows[box, at + 1 :], now[:, at + 1 :], ids)
        value = lessons.class_value[turn, None]
        classes = torch.where(value.isnan(), classes, classes.scatter(1, ids[:, None], value))
        state[box] = torch.cat((now[:, :at] + lessons.box[turn], objectness[:, None], classes), 1)
    return shared.places, state


def average_boxes(state: Tensor, at: int, chosen: Tensor) -> Tensor:
    """Box entries of (s, entries) divided by the number of classes that are to rise, where `chosen` (averages_yolo_deltas)."""
    rising = (state[:, at + 1 :] > 0).sum(1).clamp(min=1)
    divisor = torch.where(chosen, rising, 1)[:, None]
    return torch.cat((state[:, :at] / divisor, state[:, at:]), 1)


def put(delta: Tensor, places: Places, rows: Tensor) -> Tensor:
    """`delta` (n, anchors, entries, h, w) with the entries (s, entries) at different places replaced, in place."""
    delta[places.image, places.anchor, :, places.row, places.col] = rows
    return delta


def finite(values: Tensor, most: float) -> Tensor:
    """NaN and infinity to 0, then limited to +-most (yolo_layer.c fix_nan_inf, clip_value)."""
    return torch.where(values.isfinite(), values, 0.0).clamp(-most, most)


def _pick(places: Places, chosen: Tensor) -> Places:
    return Places(*(each[chosen] for each in places))


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

"""The training loss of [region] (region_layer.c forward_region_layer)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.heads.anchor_loss import Boxes, finite, put
from models.heads.base import HeadLoss, loss_value
from models.heads.class_rule import FOCAL_ALPHA, FOCAL_GUARD
from models.heads.grid import Places, all_places, grid_of, rows_at
from models.heads.matching import Shared, Truths, best_overlap, cells_of, share
from models.heads.tree import Tree
from utils.boxes import iou

if TYPE_CHECKING:
    from models.heads.region import RegionSection

OBJECTNESS = 4
SHAPING_PICTURES = 12_800  # so many pictures long every box is drawn to its anchor, with this weight:
SHAPING_SCALE = 0.01


@dataclass(frozen=True)
class RegionDelta:
    """delta: (n, num, 5 + classes, h, w). measures: overlap, objectness, probability of the class (k, 3) of the truths' boxes."""

    delta: Tensor
    measures: Tensor
    no_object: Tensor


def region_delta(
    section: RegionSection,
    cells: Tensor,
    truths: Truths,
    boxes: Boxes,
    tree: Tree | None,
    class_map: Sequence[int] | None,
    seen: int,
) -> RegionDelta:
    """Delta for outputs `cells` (n, num, 5 + classes, h, w); boxes: Region.boxes."""
    places = all_places(cells)
    rows = rows_at(cells, places)
    overlap, column = best_overlap(boxes(rows, places, grid_of(cells), (1, 1)), places.image, truths.table)
    state = _background(section, rows, overlap)
    if seen < SHAPING_PICTURES:
        centre = torch.full_like(rows[:, :2], 0.5)
        state[:, :4] = _box_delta(rows, centre, torch.zeros_like(centre), SHAPING_SCALE)
    if section.classfix > 0:
        chosen = (overlap > section.thresh).nonzero()[:, 0]
        ids = truths.class_ids[truths.row_of[places.image[chosen], column[chosen]]]
        scale = rows[chosen, OBJECTNESS] if section.classfix == 2 else torch.ones_like(rows[chosen, OBJECTNESS])
        state[chosen, 5:] = _classes(section, tree, rows[chosen], state[chosen], ids, section.class_scale * scale)
    delta = put(torch.zeros_like(cells), places, state)
    own, found = _choose(section, cells, truths, boxes)
    shared = share(own, (*cells.shape[:2], *cells.shape[3:]))
    ids = truths.class_ids
    if class_map is not None:
        ids = torch.tensor(class_map, device=ids.device)[ids]
    taught, measures = _teach(section, cells, delta, truths, shared, found, ids, tree)
    return RegionDelta(put(delta, shared.places, taught), measures, cells[:, :, OBJECTNESS].mean())


def _background(section: RegionSection, rows: Tensor, overlap: Tensor) -> Tensor:
    """Delta (k, entries) of "no object here", left out where a box overlaps a truth."""
    objectness = rows[:, OBJECTNESS]
    slope = section.noobject_scale * objectness * (1 - objectness)
    state = torch.zeros_like(rows)
    if section.classfix == -1:
        state[:, OBJECTNESS] = (overlap - objectness) * slope
    else:
        state[:, OBJECTNESS] = torch.where(overlap > section.thresh, 0.0, -objectness * slope)
    return state


def _choose(section: RegionSection, cells: Tensor, truths: Truths, boxes: Boxes) -> tuple[Places, Tensor]:
    """The box that learns each truth, and its cxcywh_rel (k, 4): in the truth's cell, of the most similar shape."""
    grid_wh, num = grid_of(cells), cells.shape[1]
    col, row = cells_of(truths.cxcywh_rel[:, :2], grid_wh)
    count = len(col)
    anchor = torch.arange(num, device=col.device).repeat(count)
    image, rows, cols = (each.repeat_interleave(num) for each in (truths.image, row, col))
    all_of_cell = Places(image, anchor, rows, cols)
    found = boxes(rows_at(cells, all_of_cell), all_of_cell, grid_wh, (1, 1)).view(count, num, 4)
    wh = found[..., 2:]
    if section.bias_match:
        wh = (wh.new_tensor(section.anchor_sizes) / wh.new_tensor(grid_wh)).expand_as(wh)
    shape = torch.cat((torch.zeros_like(wh), wh), 2)
    wanted = torch.cat((torch.zeros_like(truths.cxcywh_rel[:, :2]), truths.cxcywh_rel[:, 2:]), 1)
    best = iou(shape, wanted[:, None]).nan_to_num(0.0).argmax(1) if count else col
    return Places(truths.image, best, row, col), found[torch.arange(count, device=col.device), best]


def _teach(
    section: RegionSection,
    cells: Tensor,
    delta: Tensor,
    truths: Truths,
    shared: Shared,
    found: Tensor,
    ids: Tensor,
    tree: Tree | None,
) -> tuple[Tensor, Tensor]:
    """Delta (s, entries) of the boxes that learn truths, the last truth of a box counts; and the measures (k, 3)."""
    rows = rows_at(cells, shared.places)[shared.box_of]
    state = rows_at(delta, shared.places)
    grid = rows.new_tensor(grid_of(cells))
    places = Places(*(each[shared.box_of] for each in shared.places))
    centre = truths.cxcywh_rel[:, :2] * grid - torch.stack((places.col, places.row), 1)
    sizes = rows.new_tensor(section.anchor_sizes)[places.anchor]
    box = _box_delta(rows, centre, (truths.cxcywh_rel[:, 2:] * grid / sizes).log(), section.coord_scale)
    overlap, objectness = iou(found, truths.cxcywh_rel), rows[:, OBJECTNESS]
    goal = overlap if section.rescore else torch.ones_like(overlap)
    wanted = section.object_scale * (goal - objectness) * objectness * (1 - objectness)
    for turn in shared.turns():
        at = shared.box_of[turn]
        scale = torch.full_like(wanted[turn], section.class_scale)
        classes = _classes(section, tree, rows[turn], state[at], ids[turn], scale)
        state[at] = torch.cat((box[turn], wanted[turn, None], classes), 1)
    probabilities = rows[:, 5:] if tree is None else tree.absolute(rows[:, 5:])
    return state, torch.stack((overlap, objectness, probabilities.gather(1, ids[:, None])[:, 0]), 1)


def _box_delta(rows: Tensor, centre: Tensor, log_size: Tensor, scale: float) -> Tensor:
    """delta_region_box; a truth of zero size teaches no size."""
    logistic = rows[:, :2].sigmoid()
    by_centre = (centre - logistic) * logistic * (1 - logistic)
    return scale * torch.cat((by_centre, finite(log_size - rows[:, 2:4], torch.inf)), 1)


def _classes(
    section: RegionSection, tree: Tree | None, rows: Tensor, state: Tensor, ids: Tensor, scale: Tensor
) -> Tensor:
    """delta_region_class: delta (k, classes) after learning a class; with a tree only the groups on the path change."""
    found, classes, scale = rows[:, 5:], ids[:, None], scale[:, None]
    if tree is not None:
        on_path, of_groups = tree.path(ids)
        return torch.where(of_groups, scale * (on_path.float() - found), state[:, 5:])
    target = torch.zeros_like(found).scatter(1, classes, 1.0)
    delta = scale * (target - found)
    if not section.focal_loss:
        return delta
    sure = found.gather(1, classes) + FOCAL_GUARD
    return delta * FOCAL_ALPHA * -(1 - sure) * (2 * sure * sure.log() + sure - 1)


def region_loss(x: Tensor, result: RegionDelta) -> HeadLoss:
    """The loss with the original's cost, the squares of all deltas."""
    delta, count = result.delta, len(result.measures)
    square = delta.square()
    sums = (square[:, :, :OBJECTNESS].sum(), square[:, :, OBJECTNESS].sum(), square[:, :, OBJECTNESS + 1 :].sum())
    recall = (result.measures[:, :1] > 0.5).float()
    means = torch.cat((result.measures, recall), 1).sum(0) / max(count, 1)
    numbers = torch.cat((torch.stack((*sums, result.no_object)), means)).tolist()
    terms = dict(zip(("box", "objectness", "class"), numbers[:3], strict=True))
    names = ("no_object", "iou", "objectness", "class", "recall50")
    cost = sum(numbers[:3])
    averages = dict(zip(names, numbers[3:], strict=True))
    return HeadLoss(loss_value(x, delta, delta.new_tensor(cost)), cost, terms, averages, count)

"""[Gaussian_yolo]: YOLOv3 with an uncertainty for each coordinate (gaussian_yolo_layer.c; arXiv:1904.04620)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models.heads.anchor_loss import (
    Boxes,
    Found,
    TargetDeltas,
    Targets,
    assigned,
    average_boxes,
    background,
    finite,
    gather_targets,
    put,
    teach,
    vanishing_delta,
)
from models.heads.anchors import AnchorSection
from models.heads.base import HeadLoss, loss_value
from models.heads.box_gradient import box_gradient
from models.heads.class_rule import class_rule, read_map
from models.heads.grid import GridHead, GridValues, Places, grid_of, split_anchors
from models.heads.matching import Truths, read_truths
from models.layers.base import Site
from models.onnx_graph import Graph
from utils.boxes import giou, iou
from utils.options import option

# Where in a box its x and y point, in parts of the box's size from its centre.
POINTS = {"center": 0.0, "left_top": -0.5, "right_bottom": 0.5}

# First entry, end and kind of the parts of a box with one function each.
_PARTS = (
    (0, 1, "place"),
    (1, 2, "doubt"),
    (2, 3, "place"),
    (3, 4, "doubt"),
    (4, 5, "size"),
    (5, 6, "doubt"),
    (6, 7, "size"),
    (7, None, "doubt"),
)


@dataclass(frozen=True, kw_only=True)
class GaussianYoloSection(AnchorSection):
    names: ClassVar[tuple[str, ...]] = ("Gaussian_yolo",)

    uc_normalizer: float = option(1.0, "factor on the gradient of the uncertainties")
    yolo_point: str = option("center", "the point of a box that x and y mean", choices=tuple(POINTS))

    @property
    def filters(self) -> int:
        return len(self.indices) * (self.classes + 9)

    def build(self, site: Site) -> GaussianYolo:
        return GaussianYolo(self, site)


class GaussianYolo(GridHead):
    """Entries of an anchor: x, y, w, h each followed by its uncertainty, objectness, classes.

    Input and output (n, anchors * (9 + classes), h, w).
    """

    objectness_at = 8

    def __init__(self, section: GaussianYoloSection, site: Site) -> None:
        super().__init__()
        self.section = section
        self.cfg_path = site.raw.path
        self.anchors = len(section.indices)
        self.own_sizes = [section.anchor_sizes[index] for index in section.indices]

    def forward(self, x: Tensor) -> Tensor:
        """gaussian_yolo_layer.c forward_gaussian_yolo_layer: logistic on all but w and h, then scale_x_y on x and y."""
        scale = self.section.scale_x_y
        cells = split_anchors(x.float(), self.anchors)
        logistic = cells.sigmoid()
        spread = logistic * scale - 0.5 * (scale - 1)
        parts = (
            spread[:, :, 0:1],
            logistic[:, :, 1:2],
            spread[:, :, 2:3],
            logistic[:, :, 3:4],
            cells[:, :, 4:5],
            logistic[:, :, 5:6],
            cells[:, :, 6:7],
            logistic[:, :, 7:],
        )
        return torch.cat(parts, 2).reshape(x.shape)

    def boxes(self, rows: Tensor, places: Places, grid_wh: tuple[int, int], size_wh: tuple[int, int]) -> Tensor:
        """gaussian_yolo_layer.c get_gaussian_yolo_box."""
        sizes = rows.new_tensor(self.own_sizes)[places.anchor]
        size = rows[:, 4:8:2].exp() * sizes / rows.new_tensor(size_wh)
        corner = torch.stack((places.col, places.row), 1)
        point = (corner + rows[:, 0:4:2]) / rows.new_tensor(grid_wh)
        return torch.cat((point - POINTS[self.section.yolo_point] * size, size), 1)

    def probabilities(self, rows: Tensor) -> Tensor:
        """get_gaussian_yolo_detections: the mean uncertainty lowers every score."""
        certain = 1 - rows[:, 1:8:2].mean(1)
        return (rows[:, 8] * certain)[:, None] * rows[:, 9:]

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        scale = self.section.scale_x_y
        cells = self.export_rows(graph, inputs[0], site)
        parts = []
        for start, stop, kind in _PARTS:
            part = graph.slice(cells, 2, start, stop)
            if kind != "size":
                part = graph.node("Sigmoid", part)
            if kind == "place" and scale != 1:
                part = graph.node("Sub", graph.node("Mul", part, scale), 0.5 * (scale - 1))
            parts.append(part)
        return self.export_output(graph, site, parts, inputs[0])

    def export_coordinates(self, graph: Graph, rows: str, grid: GridValues) -> str:
        spread = graph.node("Exp", graph.slice(rows, 3, 4, 8, 2))
        size = graph.node("Div", graph.node("Mul", spread, graph.constant([[self.own_sizes]])), grid.size_wh)
        point = graph.node("Div", graph.node("Add", graph.slice(rows, 3, 0, 4, 2), grid.corner), grid.count)
        shift = POINTS[self.section.yolo_point]
        return graph.concat([graph.node("Sub", point, graph.node("Mul", size, shift)) if shift else point, size], 3)

    def export_scores(self, graph: Graph, rows: str, site: Site) -> str:
        doubt = graph.node("Mul", graph.sum(graph.slice(rows, 3, 1, 8, 2), 3), 0.25)
        return graph.node("Mul", super().export_scores(graph, rows, site), graph.node("Sub", 1.0, doubt))

    def loss(self, x: Tensor, truth: Tensor, size_wh: tuple[int, int], seen: int) -> HeadLoss:
        section = self.section
        with torch.no_grad():
            cells = split_anchors(self(x), self.anchors)
            truths = read_truths(truth.to(cells.device), section.max_truths, section.classes)
            class_map = read_map(section.map, self.cfg_path, section.classes)
            point = POINTS[section.yolo_point]
            result = gaussian_delta(section, cells, truths, self.boxes, point, class_map, size_wh)
        return gaussian_loss(section, x, result)

    def attack(self, x: Tensor, truth: Tensor, size_wh: tuple[int, int], seen: int) -> Tensor:
        with torch.no_grad():
            cells = split_anchors(self(x), self.anchors)
            normalizer = self.section.obj_normalizer
            delta = vanishing_delta(
                cells, self.objectness_at, self.boxes, size_wh, obj_normalizer=normalizer, distort=False
            )
        return loss_value(x, delta, delta.new_zeros(())) * self.section.delta_normalizer


OBJECTNESS = 8
SIGMA = 0.3  # sigma_const of delta_gaussian_yolo_box, keeps the deviation away from 0
EPSILON = 1e-9


@dataclass(frozen=True)
class GaussianDelta:
    """delta: (n, anchors, 9 + classes, h, w). targets: what was taught. no_object: mean objectness of all boxes."""

    delta: Tensor
    targets: Targets
    no_object: Tensor


def gaussian_delta(
    section: GaussianYoloSection,
    cells: Tensor,
    truths: Truths,
    boxes: Boxes,
    point: float,
    class_map: Sequence[int] | None,
    size_wh: tuple[int, int],
) -> GaussianDelta:
    """Delta for outputs `cells` (n, anchors, 9 + classes, h, w); boxes: GaussianYolo.boxes.

    point: where in a truth its cell is looked for, in parts of its size from its centre.
    """
    delta, near, taught = background(section, cells, OBJECTNESS, truths, boxes, size_wh)
    if not section.objectness_smooth:
        near = Found(type(near.places)(*(each[:0] for each in near.places)), near.truth[:0], near.overlap[:0])
    points = truths.cxcywh_rel[:, :2] + point * truths.cxcywh_rel[:, 2:]
    own = assigned(section, truths, points, grid_of(cells), size_wh)
    targets = gather_targets(cells, truths, [near, taught], own, boxes, class_map, size_wh)
    rule = class_rule(section, asks_first=True)
    factor = rule.factor(targets.class_ids)
    lessons = _lessons(section, targets, factor, len(near.truth), point, grid_of(cells), size_wh)
    places, state = teach(cells, delta, lessons, rule, OBJECTNESS)
    state = average_boxes(state, OBJECTNESS, torch.ones_like(state[:, 0], dtype=torch.bool))
    return GaussianDelta(put(delta, places, state), targets, cells[:, :, OBJECTNESS].mean())


def _lessons(
    section: GaussianYoloSection,
    targets: Targets,
    factor: Tensor,
    near: int,
    point: float,
    grid_wh: tuple[int, int],
    size_wh: tuple[int, int],
) -> TargetDeltas:
    """near: the first so many targets teach their class and overlap only, no box."""
    rows, own, smooth = targets.rows, targets.assigned, section.objectness_smooth
    goal = torch.where(own | (not smooth), 1.0, targets.overlap.square())
    objectness = section.obj_normalizer * (goal - rows[:, OBJECTNESS])
    mine = rows[:, OBJECTNESS + 1 :].gather(1, targets.class_ids[:, None])[:, 0]
    box = _box_delta(section, targets, factor * section.iou_normalizer, point, grid_wh, size_wh)
    order = torch.arange(len(targets), device=rows.device)
    surpassing = (order >= near) & ~own
    return TargetDeltas(
        places=targets.places,
        box=torch.where((order < near)[:, None], 0.0, box),
        objectness=torch.where(own, objectness * factor, objectness),
        yields=torch.zeros_like(own),
        class_ids=targets.class_ids,
        class_value=torch.where(surpassing & smooth, factor * (goal - mine), torch.nan),
    )


def _box_delta(
    section: GaussianYoloSection,
    targets: Targets,
    factor: Tensor,
    point: float,
    grid_wh: tuple[int, int],
    size_wh: tuple[int, int],
) -> Tensor:
    """delta_gaussian_yolo_box: (k, 8), each coordinate followed by its uncertainty."""
    rows, wanted = targets.rows, targets.wanted
    means, deviations = rows[:, 0:8:2], rows[:, 1:8:2]
    sizes = rows.new_tensor([section.anchor_sizes[index] for index in section.indices])[targets.places.anchor]
    corner = torch.stack((targets.places.col, targets.places.row), 1)
    centre = (wanted[:, :2] + point * wanted[:, 2:]) * wanted.new_tensor(grid_wh) - corner
    size = (wanted[:, 2:] * wanted.new_tensor(size_wh) / sizes).log()
    relative = (torch.cat((centre, size), 1) - means) / deviations
    density = (-relative.square() / 2).exp() / (math.sqrt(2 * math.pi) * (deviations + SIGMA))
    scale = (2 - wanted[:, 2] * wanted[:, 3])[:, None]
    weight = 0.5 / (density + EPSILON) * density * scale
    uncertainty = weight * (relative.square() / deviations - 1 / (deviations + SIGMA))
    if section.iou_loss == "mse":
        mean = weight * relative / deviations
    else:
        mean = _overlap_delta(section.iou_loss, targets, point, means[:, 2:])
    both = torch.stack((mean * factor[:, None], uncertainty * section.uc_normalizer), 2)
    return finite(both.flatten(1), section.max_delta)


def _overlap_delta(kind: str, targets: Targets, point: float, spread: Tensor) -> Tensor:
    found = targets.found
    size = torch.where(found[:, 2:] == 0, 1.0, found[:, 2:])
    gradient = box_gradient(torch.cat((found[:, :2], size), 1), targets.wanted, kind)
    return torch.cat((gradient[:, :2] + point * gradient[:, 2:], gradient[:, 2:] * spread.exp()), 1)


def gaussian_loss(section: GaussianYoloSection, x: Tensor, result: GaussianDelta) -> HeadLoss:
    """The loss with the original's cost, the squares of all deltas."""
    delta, targets = result.delta, result.targets
    count = int(targets.assigned.sum())
    square = delta.square()
    sums = torch.stack(
        (
            square[:, :, 0:OBJECTNESS:2].sum(),
            square[:, :, 1:OBJECTNESS:2].sum(),
            square[:, :, OBJECTNESS].sum(),
            square[:, :, OBJECTNESS + 1 :].sum(),
            result.no_object,
        )
    )
    own = targets.assigned
    measure = iou if section.iou_loss == "mse" else giou  # what the original prints as IoU
    overlap = measure(targets.found[own], targets.wanted[own])
    rows = targets.rows[own]
    mine = rows[:, OBJECTNESS + 1 :].gather(1, targets.class_ids[own][:, None])[:, 0]
    measures = (overlap, mine, rows[:, OBJECTNESS], (overlap > 0.5).float(), (overlap > 0.75).float())
    means = torch.stack(measures, 1).sum(0) / max(count, 1)
    *parts, no_object, mean_iou, mean_class, objectness, recall50, recall75 = torch.cat((sums, means)).tolist()
    terms = dict(zip(("box", "uncertainty", "objectness", "class"), parts, strict=True))
    cost = sum(parts)
    averages = {
        "iou": mean_iou,
        "class": mean_class,
        "objectness": objectness,
        "no_object": no_object,
        "recall50": recall50,
        "recall75": recall75,
        "total_loss": cost / len(delta),
    }
    value = loss_value(x, delta, delta.new_tensor(cost))
    return HeadLoss(value, cost, terms, averages, count, section.delta_normalizer)

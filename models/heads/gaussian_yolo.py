"""[Gaussian_yolo]: YOLOv3 with an uncertainty for each coordinate (gaussian_yolo_layer.c; arXiv:1904.04620)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models.heads.anchor_head import AnchorHead, ClassLoss, TargetDeltas, Targets, finite
from models.heads.anchors import AnchorSection
from models.heads.base import HeadLoss, make_loss, to_floats
from models.heads.grid import GridValues, Locations, grid_of, split_anchors, write_entries
from models.heads.matching import GroundTruth
from models.layers.base import Site
from models.onnx_graph import Graph
from utils.boxes import giou, iou
from utils.options import option

OBJECTNESS = 8
SIGMA = 0.3  # sigma_const of delta_gaussian_yolo_box; keeps the deviation away from 0
EPSILON = 1e-9

# Which point of a box x and y stand for, relative to the centre, in units of the box size.
POINTS = {"center": 0.0, "left_top": -0.5, "right_bottom": 0.5}

# (first entry, end, kind) of the parts of an anchor that share an activation.
_PARTS = (
    (0, 1, "centre"),
    (1, 2, "logistic"),
    (2, 3, "centre"),
    (3, 4, "logistic"),
    (4, 5, "size"),
    (5, 6, "logistic"),
    (6, 7, "size"),
    (7, None, "logistic"),
)


@dataclass(frozen=True, kw_only=True)
class GaussianYoloSection(AnchorSection):
    """[yolo] with an uncertainty for each coordinate (gaussian_yolo_layer.c; arXiv:1904.04620)."""

    names: ClassVar[tuple[str, ...]] = ("Gaussian_yolo",)

    uc_normalizer: float = option(1.0, "factor on the gradient of the uncertainties")
    yolo_point: str = option("center", "point of a box that x and y denote", choices=tuple(POINTS))

    @property
    def filters(self) -> int:
        return len(self.indices) * (self.classes + 9)

    def build(self, site: Site) -> GaussianYolo:
        return GaussianYolo(self, site)


class GaussianYolo(AnchorHead):
    """Input and output (n, anchors * (9 + classes), h, w).

    The entries of an anchor are x, y, w, h, each followed by its uncertainty, then objectness and classes.
    """

    objectness_at = OBJECTNESS
    adversarial_classes = False
    section: GaussianYoloSection

    @property
    def point(self) -> float:
        return POINTS[self.section.yolo_point]

    def forward(self, x: Tensor) -> Tensor:
        """Apply a logistic to all but w and h, then scale_x_y to x and y (gaussian_yolo_layer.c forward_gaussian_yolo_layer)."""
        scale = self.section.scale_x_y
        cells = split_anchors(x.float(), self.anchors)
        logistic = cells.sigmoid()
        values = {"centre": logistic * scale - 0.5 * (scale - 1), "logistic": logistic, "size": cells}
        return torch.cat([values[kind][:, :, start:stop] for start, stop, kind in _PARTS], 2).reshape(x.shape)

    def boxes(self, entries: Tensor, at: Locations, grid_wh: tuple[int, int], size_wh: tuple[int, int]) -> Tensor:
        """gaussian_yolo_layer.c get_gaussian_yolo_box."""
        sizes = entries.new_tensor(self.own_sizes)[at.anchor]
        size = entries[:, 4:8:2].exp() * sizes / entries.new_tensor(size_wh)
        point = (at.corner + entries[:, 0:4:2]) / entries.new_tensor(grid_wh)
        return torch.cat((point - self.point * size, size), 1)

    def scores(self, entries: Tensor) -> Tensor:
        """Scores lowered by the mean uncertainty of the box (get_gaussian_yolo_detections)."""
        certainty = 1 - entries[:, 1:8:2].mean(1)
        return (entries[:, 8] * certainty)[:, None] * entries[:, 9:]

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        scale = self.section.scale_x_y
        cells = self.export_entries(graph, inputs[0], site)
        parts = []
        for start, stop, kind in _PARTS:
            part = graph.slice(cells, 2, start, stop)
            if kind != "size":
                part = graph.node("Sigmoid", part)
            if kind == "centre" and scale != 1:
                part = graph.node("Sub", graph.node("Mul", part, scale), 0.5 * (scale - 1))
            parts.append(part)
        return self.export_output(graph, site, parts, inputs[0])

    def export_coordinates(self, graph: Graph, entries: str, grid: GridValues) -> str:
        spread = graph.node("Exp", graph.slice(entries, 3, 4, 8, 2))
        sizes = graph.constant([[self.own_sizes]])
        size = graph.node("Div", graph.node("Mul", spread, sizes), grid.size_wh)
        point = graph.node("Div", graph.node("Add", graph.slice(entries, 3, 0, 4, 2), grid.corner), grid.count)
        centre = graph.node("Sub", point, graph.node("Mul", size, self.point)) if self.point else point
        return graph.concat([centre, size], 3)

    def export_scores(self, graph: Graph, entries: str, site: Site) -> str:
        uncertainty = graph.node("Mul", graph.sum(graph.slice(entries, 3, 1, 8, 2), 3), 0.25)
        scores = super().export_scores(graph, entries, site)
        return graph.node("Mul", scores, graph.node("Sub", 1.0, uncertainty))

    def delta(self, cells: Tensor, ground_truth: GroundTruth, size_wh: tuple[int, int]) -> tuple[Tensor, Targets]:
        delta, near, matched = self.background_delta(cells, ground_truth, size_wh)
        matches = [near, matched] if self.section.objectness_smooth else [matched]
        points = ground_truth.cxcywh_rel[:, :2] + self.point * ground_truth.cxcywh_rel[:, 2:]
        targets = self.assign_targets(cells, ground_truth, matches, points, size_wh)
        class_loss = ClassLoss.of(self.section, checks_first=True)
        factor = class_loss.factor(targets.class_ids)
        boxless = len(near.gt_index) if self.section.objectness_smooth else 0
        deltas = self._target_deltas(targets, factor, boxless, grid_of(cells), size_wh)
        locations, state = self.apply_targets(cells, delta, deltas, class_loss)
        state = self.average_boxes(state, torch.ones_like(state[:, 0], dtype=torch.bool))
        return write_entries(delta, locations, state), targets

    def _target_deltas(
        self, targets: Targets, factor: Tensor, boxless: int, grid_wh: tuple[int, int], size_wh: tuple[int, int]
    ) -> TargetDeltas:
        """Deltas of the targets; boxless: how many of them, from the first, train class and objectness only."""
        section, smooth, assigned = self.section, self.section.objectness_smooth, targets.assigned
        goal = torch.where(assigned | (not smooth), 1.0, targets.overlap.square())
        objectness = section.obj_normalizer * (goal - targets.entries[:, OBJECTNESS])
        box = self._box_delta(targets, factor * section.iou_normalizer, grid_wh, size_wh)
        order = torch.arange(len(targets), device=factor.device)
        matched = (order >= boxless) & ~assigned
        return TargetDeltas(
            at=targets.at,
            box=torch.where((order < boxless)[:, None], 0.0, box),
            objectness=torch.where(assigned, objectness * factor, objectness),
            keeps=torch.zeros_like(assigned),
            class_ids=targets.class_ids,
            class_value=torch.where(matched & smooth, factor * (goal - self.target_probability(targets)), torch.nan),
        )

    def _box_delta(
        self, targets: Targets, factor: Tensor, grid_wh: tuple[int, int], size_wh: tuple[int, int]
    ) -> Tensor:
        """Box delta (k, 8), each coordinate followed by its uncertainty (delta_gaussian_yolo_box)."""
        section, entries, wanted, at = self.section, targets.entries, targets.wanted, targets.at
        means, deviations = entries[:, 0:8:2], entries[:, 1:8:2]
        sizes = entries.new_tensor(self.own_sizes)[at.anchor]
        centre = (wanted[:, :2] + self.point * wanted[:, 2:]) * wanted.new_tensor(grid_wh) - at.corner
        size = (wanted[:, 2:] * wanted.new_tensor(size_wh) / sizes).log()
        relative = (torch.cat((centre, size), 1) - means) / deviations
        density = (-relative.square() / 2).exp() / (math.sqrt(2 * math.pi) * (deviations + SIGMA))
        scale = (2 - wanted[:, 2] * wanted[:, 3])[:, None]
        weight = 0.5 / (density + EPSILON) * density * scale
        uncertainty = weight * (relative.square() / deviations - 1 / (deviations + SIGMA))
        mean = weight * relative / deviations if section.iou_loss == "mse" else self._iou_delta(targets, means[:, 2:])
        both = torch.stack((mean * factor[:, None], uncertainty * section.uc_normalizer), 2)
        return finite(both.flatten(1), section.max_delta)

    def _iou_delta(self, targets: Targets, spread: Tensor) -> Tensor:
        gradient = self.overlap_gradient(targets)
        centre = gradient[:, :2] + self.point * gradient[:, 2:]
        return torch.cat((centre, gradient[:, 2:] * spread.exp()), 1)

    def report(self, x: Tensor, delta: Tensor, targets: Targets, no_object: Tensor) -> HeadLoss:
        """Loss with the original's cost, the sum of squares of all deltas."""
        assigned, square = targets.assigned, delta.square()
        sums = {
            "box": square[:, :, 0:OBJECTNESS:2].sum(),
            "uncertainty": square[:, :, 1:OBJECTNESS:2].sum(),
            "objectness": square[:, :, OBJECTNESS].sum(),
            "class": square[:, :, OBJECTNESS + 1 :].sum(),
        }
        measure = iou if self.section.iou_loss == "mse" else giou  # what the original prints as IoU
        overlap = measure(targets.predicted[assigned], targets.wanted[assigned])
        measures = {
            "iou": overlap,
            "class": self.target_probability(targets)[assigned],
            "objectness": targets.entries[assigned, OBJECTNESS],
            "recall50": (overlap > 0.5).float(),
            "recall75": (overlap > 0.75).float(),
        }
        terms, averages = to_floats(sums, measures, no_object)
        averages["total_loss"] = sum(terms.values()) / len(delta)
        return make_loss(x, delta, terms, averages, len(overlap), self.section.delta_normalizer)

"""[Gaussian_yolo]: YOLOv3 with an uncertainty for each coordinate (gaussian_yolo_layer.c; arXiv:1904.04620)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models.export.graph import Graph
from models.heads.anchor_section import AnchorSection
from models.heads.base import HeadLoss, loss_value
from models.heads.class_rule import read_map
from models.heads.gaussian_loss import gaussian_delta, gaussian_loss
from models.heads.grid import GridHead, GridValues, Places, split_anchors
from models.heads.matching import read_truths
from models.heads.vanishing import vanishing_delta
from models.layers.base import Site
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

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
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

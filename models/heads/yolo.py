"""[yolo]: boxes from anchors in a grid, independent class probabilities (yolo_layer.c, YOLOv3 to v4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models.export.graph import Graph
from models.heads.anchor_section import AnchorSection
from models.heads.base import HeadLoss, loss_value
from models.heads.class_rule import read_map
from models.heads.grid import GridHead, GridValues, Places, split_anchors
from models.heads.matching import read_truths
from models.heads.vanishing import vanishing_delta
from models.heads.yolo_loss import yolo_delta, yolo_loss
from models.layers.base import Site
from utils.options import ignored, option

_TRACKING = "following objects from frame to frame is not offered"
_NOT_READ = "the original does not read it here either"


@dataclass(frozen=True, kw_only=True)
class YoloSection(AnchorSection):
    names: ClassVar[tuple[str, ...]] = ("yolo",)

    new_coords: bool = option(False, "no activation here: the layer before ends with a logistic one; sizes are squared")
    focal_loss: bool = option(False, "focal loss of the classes")
    show_details: bool = option(True, "0: the reported cost is the sum of all squared gradients")
    embedding_layer: int = ignored(999999, _TRACKING)
    track_history_size: int = ignored(5, _TRACKING)
    sim_thresh: float = ignored(0.8, _TRACKING)
    dets_for_track: int = ignored(1, _TRACKING)
    dets_for_show: int = ignored(1, _TRACKING)
    track_ciou_norm: float = ignored(0.01, _TRACKING)
    uc_normalizer: float = ignored(1.0, _NOT_READ)
    beta1: float = ignored(0.6, _NOT_READ)

    @property
    def filters(self) -> int:
        return len(self.indices) * (self.classes + 5)

    def build(self, site: Site) -> Yolo:
        return Yolo(self, site)


class Yolo(GridHead):
    """Entries of an anchor: x, y, w, h, objectness, classes. Input and output (n, anchors * (5 + classes), h, w)."""

    objectness_at = 4
    is_size: Tensor
    factor: Tensor
    shift: Tensor

    def __init__(self, section: YoloSection, site: Site) -> None:
        super().__init__()
        self.section = section
        self.cfg_path = site.raw.path
        self.anchors = len(section.indices)
        self.own_sizes = [section.anchor_sizes[index] for index in section.indices]
        entry = torch.arange(section.filters).view(1, -1, 1, 1) % (section.classes + 5)
        scale = section.scale_x_y
        self.register_buffer("is_size", (entry == 2) | (entry == 3), persistent=False)
        self.register_buffer("factor", torch.where(entry < 2, scale, 1.0), persistent=False)
        self.register_buffer("shift", torch.where(entry < 2, -0.5 * (scale - 1), 0.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """yolo_layer.c forward_yolo_layer: logistic on all but w and h, then scale_x_y on x and y."""
        y = x.float()
        if not self.section.new_coords:
            y = torch.where(self.is_size, y, y.sigmoid())
        return y if self.section.scale_x_y == 1 else y * self.factor + self.shift

    def boxes(self, rows: Tensor, places: Places, grid_wh: tuple[int, int], size_wh: tuple[int, int]) -> Tensor:
        """yolo_layer.c get_yolo_box."""
        sizes = rows.new_tensor(self.own_sizes)[places.anchor]
        spread = rows[:, 2:4].square() * 4 if self.section.new_coords else rows[:, 2:4].exp()
        corner = torch.stack((places.col, places.row), 1)
        centre = (corner + rows[:, :2]) / rows.new_tensor(grid_wh)
        return torch.cat((centre, spread * sizes / rows.new_tensor(size_wh)), 1)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        section = self.section
        cells = self.export_rows(graph, inputs[0], site)
        xy, wh, rest = (graph.slice(cells, 2, *ends) for ends in ((0, 2), (2, 4), (4, None)))
        if not section.new_coords:
            xy, rest = graph.node("Sigmoid", xy), graph.node("Sigmoid", rest)
        if section.scale_x_y != 1:
            xy = graph.node("Sub", graph.node("Mul", xy, section.scale_x_y), 0.5 * (section.scale_x_y - 1))
        return self.export_output(graph, site, (xy, wh, rest), inputs[0])

    def export_coordinates(self, graph: Graph, rows: str, grid: GridValues) -> str:
        centre = graph.node("Div", graph.node("Add", graph.slice(rows, 3, 0, 2), grid.corner), grid.count)
        wh = graph.slice(rows, 3, 2, 4)
        double = graph.node("Mul", wh, 2.0)
        spread = graph.node("Mul", double, double) if self.section.new_coords else graph.node("Exp", wh)
        sizes = graph.constant([[self.own_sizes]])
        return graph.concat([centre, graph.node("Div", graph.node("Mul", spread, sizes), grid.size_wh)], 3)

    def loss(self, x: Tensor, truth: Tensor, size_wh: tuple[int, int], seen: int) -> HeadLoss:
        with torch.no_grad():
            cells = split_anchors(self(x), self.anchors)
            truths = read_truths(truth.to(cells.device), self.section.max_truths, self.section.classes)
            class_map = read_map(self.section.map, self.cfg_path, self.section.classes)
            result = yolo_delta(self.section, cells, truths, self.boxes, class_map, size_wh)
        return yolo_loss(self.section, x, result)

    def attack(self, x: Tensor, truth: Tensor, size_wh: tuple[int, int], seen: int) -> Tensor:
        with torch.no_grad():
            cells = split_anchors(self(x), self.anchors)
            normalizer = self.section.obj_normalizer
            delta = vanishing_delta(
                cells, self.objectness_at, self.boxes, size_wh, obj_normalizer=normalizer, distort=True
            )
        return loss_value(x, delta, delta.new_zeros(())) * self.section.delta_normalizer

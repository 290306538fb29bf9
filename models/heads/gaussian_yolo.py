"""[Gaussian_yolo]: YOLOv3 with an uncertainty for each coordinate (gaussian_yolo_layer.c; arXiv:1904.04620)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models.heads.anchor_section import AnchorSection
from models.heads.base import HeadLoss
from models.heads.class_rule import read_map
from models.heads.gaussian_loss import gaussian_delta, gaussian_loss
from models.heads.grid import GridHead, Places, split_anchors
from models.heads.matching import read_truths
from models.layers.base import Site
from utils.options import option

# Where in a box its x and y point, in parts of the box's size from its centre.
POINTS = {"center": 0.0, "left_top": -0.5, "right_bottom": 0.5}


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

    def loss(self, x: Tensor, truth: Tensor, size_wh: tuple[int, int], seen: int) -> HeadLoss:
        section = self.section
        with torch.no_grad():
            cells = split_anchors(self(x), self.anchors)
            truths = read_truths(truth.to(cells.device), section.max_truths, section.classes)
            class_map = read_map(section.map, self.cfg_path, section.classes)
            point = POINTS[section.yolo_point]
            result = gaussian_delta(section, cells, truths, self.boxes, point, class_map, size_wh)
        return gaussian_loss(section, x, result)

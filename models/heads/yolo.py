"""[yolo]: boxes from anchors in a grid, independent class probabilities (yolo_layer.c, YOLOv3 to v4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models.heads import anchors
from models.heads.base import NO_LIMIT, BoxSection
from models.heads.grid import GridHead, Places, split_anchors
from models.layers.base import Shape, Site
from utils.options import ignored, option

IOU_LOSSES = ("mse", "iou", "giou", "diou", "ciou")
IOU_KINDS = ("iou", "giou", "diou", "ciou")
NMS_KINDS = ("default", "greedynms", "diounms", "cornersnms")

_TRACKING = "following objects from frame to frame is not offered"
_NOT_READ = "the original does not read it here either"


@dataclass(frozen=True, kw_only=True)
class AnchorSection(BoxSection):
    """The keys that [yolo] and [Gaussian_yolo] share."""

    num: int = option(1, "anchors of all heads together", least=1, most=10_000)
    mask: tuple[int, ...] | None = option(None, "the anchors of this head, counted from 0; default all")
    anchors: tuple[float, ...] | None = option(None, "width, height of each anchor in pixels of the network's input")
    scale_x_y: float = option(1.0, "x and y are spread around the middle of the cell by this factor")
    iou_loss: str = option("mse", "loss of the boxes", choices=IOU_LOSSES)
    iou_normalizer: float = option(0.75, "factor on the gradient of the boxes")
    obj_normalizer: float = option(1.0, "factor on the gradient of the objectness")
    cls_normalizer: float = option(1.0, "factor on the gradient of the true class; acts with counters_per_class only")
    delta_normalizer: float = option(1.0, "factor on all gradients of the head")
    max_delta: float = option(
        NO_LIMIT, "largest gradient of a box coordinate, and largest factor of counters_per_class"
    )
    ignore_thresh: float = option(0.5, "boxes that overlap a truth by more than this are not taught to be background")
    truth_thresh: float = option(1.0, "boxes that overlap a truth by more than this are taught to be that truth")
    iou_thresh: float = option(
        1.0, "anchors that overlap a truth's shape by more than this are taught it, besides the best"
    )
    iou_thresh_kind: str = option("iou", "measure of iou_thresh", choices=IOU_KINDS)
    counters_per_class: tuple[int, ...] | None = option(None, "objects of each class, to weight rare classes up")
    label_smooth_eps: float = option(0.0, "smoothing of the class targets")
    objectness_smooth: bool = option(False, "the overlap is the target of the objectness")
    nms_kind: str = option("default", "suppression of overlapping boxes", choices=NMS_KINDS)
    beta_nms: float = option(0.6, "exponent of the distance in nms_kind=diounms")
    map: str | None = option(None, "file with a class number for each class of the labels, a line each; for training")

    @property
    def indices(self) -> tuple[int, ...]:
        """The anchors of this head, counted from 0 among all."""
        return tuple(range(self.num)) if self.mask is None else self.mask

    @property
    def anchor_count(self) -> int:
        """Anchors of all heads: num, or more if the list has them and the mask asks for them.

        A published cfg has num=16 and uses 20; the original then reads what lies behind its array.
        """
        given = len(self.anchors or ()) // 2
        return max(self.num, min(given, max(self.indices) + 1))

    @property
    def anchor_sizes(self) -> tuple[tuple[float, float], ...]:
        """Width and height in pixels of all anchors."""
        return anchors.pairs(self.anchors, self.anchor_count)

    def suppression(self) -> tuple[str, float]:
        return self.nms_kind, self.beta_nms

    def shape(self, site: Site) -> Shape:
        anchors.check_mask(site, self.indices, self.anchor_count)
        anchors.check_sizes(site, self.anchors, self.anchor_count)
        counters = self.counters_per_class
        if counters is not None and len(counters) != self.classes:
            text = f"counters_per_class: has {len(counters)} values, expected one for each of {self.classes} classes"
            raise site.error(text, "counters_per_class")
        anchors.check_filters(site, self.filters, f"{len(self.indices)} anchors (mask) and classes={self.classes}")
        return site.input


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

    def __init__(self, section: YoloSection, site: Site) -> None:
        super().__init__()
        self.section = section
        self.cfg_path = site.raw.path
        self.anchors = len(section.indices)
        self.own_sizes = [section.anchor_sizes[index] for index in section.indices]

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """yolo_layer.c forward_yolo_layer: logistic on all but w and h, then scale_x_y on x and y."""
        section = self.section
        cells = split_anchors(x.float(), self.anchors)
        xy, wh, rest = cells.split((2, 2, section.classes + 1), 2)
        if not section.new_coords:
            xy, rest = xy.sigmoid(), rest.sigmoid()
        if section.scale_x_y != 1:
            xy = xy * section.scale_x_y - 0.5 * (section.scale_x_y - 1)
        return torch.cat((xy, wh, rest), 2).reshape(x.shape)

    def boxes(self, rows: Tensor, places: Places, grid_wh: tuple[int, int], size_wh: tuple[int, int]) -> Tensor:
        """yolo_layer.c get_yolo_box."""
        sizes = rows.new_tensor(self.own_sizes)[places.anchor]
        spread = rows[:, 2:4].square() * 4 if self.section.new_coords else rows[:, 2:4].exp()
        corner = torch.stack((places.col, places.row), 1)
        centre = (corner + rows[:, :2]) / rows.new_tensor(grid_wh)
        return torch.cat((centre, spread * sizes / rows.new_tensor(size_wh)), 1)

"""The keys that [yolo] and [Gaussian_yolo] share, and the checks of a cfg that has them."""

from __future__ import annotations

from dataclasses import dataclass

from models.heads import anchors
from models.heads.base import NO_LIMIT, BoxSection
from models.layers.base import Shape, Site
from utils.options import option

IOU_LOSSES = ("mse", "iou", "giou", "diou", "ciou")
IOU_KINDS = ("iou", "giou", "diou", "ciou")
NMS_KINDS = ("default", "greedynms", "diounms", "cornersnms")


@dataclass(frozen=True, kw_only=True)
class AnchorSection(BoxSection):
    """A head with anchors in pixels and one objectness and class probabilities for each box."""

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

    def reported_shape(self, site: Site) -> Shape:
        return site.input

"""Anchors in a cfg: parsing the list, checks of a planned head, and the options of heads with anchors in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.heads.base import NO_LIMIT, BoxSection
from models.layers.base import Shape, Site
from utils.errors import HeadWidthError
from utils.options import option, warn

DEFAULT_SIZE = 0.5  # width and height of anchors missing in the list (make_yolo_layer, make_region_layer)
IOU_LOSSES = ("mse", "iou", "giou", "diou", "ciou")
IOU_KINDS = ("iou", "giou", "diou", "ciou")
NMS_KINDS = ("default", "greedynms", "diounms", "cornersnms")


def pairs(values: Sequence[float] | None, count: int) -> tuple[tuple[float, float], ...]:
    """`count` pairs (width, height) from the flat list in the cfg; missing values are DEFAULT_SIZE, as in the original."""
    given = [*(values or ())][: 2 * count]
    given += [DEFAULT_SIZE] * (2 * count - len(given))
    return tuple(zip(given[::2], given[1::2], strict=True))


def anchors_text(sizes: Sequence[tuple[float, float]]) -> str:
    """Anchors for the layer table, such as "10x13 16x30"."""
    return " ".join(f"{width:.4g}x{height:.4g}" for width, height in sizes)


def check_sizes(site: Site, values: Sequence[float] | None, count: int) -> None:
    """Raise CfgError for a negative size; warn of zero sizes and of a list with fewer or more than `count` anchors.

    Some published cfgs have such lists, and the original accepts them.
    """
    if values is None:
        return
    entry = site.raw.find("anchors")
    lowest = min(values[: 2 * count], default=1.0)
    if lowest < 0:
        raise site.error(f"anchors: {lowest:g} is out of range, expected sizes above 0", "anchors")
    if lowest == 0:
        warn(site.raw, entry, "anchors: has a size of 0; boxes of that anchor are empty")
    if len(values) != 2 * count:
        effect = f"the missing ones are {DEFAULT_SIZE}" if len(values) < 2 * count else "the last ones are not used"
        text = f"anchors: has {len(values)} values, expected 2 for each of {count} anchors; {effect}"
        warn(site.raw, entry, text)


def check_mask(site: Site, indices: Sequence[int], count: int) -> None:
    """Raise CfgError if `mask` names an anchor that does not exist, or the same anchor twice."""
    for index in indices:
        if not 0 <= index < count:
            raise site.error(f"mask: there is no anchor {index}, expected 0 to {count - 1}", "mask")
    if len(set(indices)) < len(indices):
        raise site.error("mask: names an anchor twice", "mask")


def check_filters(site: Site, filters: int, because: str) -> None:
    """Raise CfgError if the previous layer does not have the number of channels that the head needs."""
    if site.input.channels != filters:
        found = site.input.channels
        text = f"reads {found} channels, expected filters={filters} in the layer before it for {because}"
        raise HeadWidthError(site.error(text), site.index, "filters", filters)


@dataclass(frozen=True, kw_only=True)
class AnchorSection(BoxSection):
    """Options of heads with anchors in pixels, and an objectness and independent class probabilities for each box."""

    num: int = option(1, "number of anchors of all heads together", least=1, most=10_000)
    mask: tuple[int, ...] | None = option(None, "anchors of this head, counted from 0; default all")
    anchors: tuple[float, ...] | None = option(None, "width, height of each anchor in pixels of the network's input")
    scale_x_y: float = option(1.0, "factor by which x and y may reach beyond their cell (grid sensitivity)")
    iou_loss: str = option("mse", "box loss", choices=IOU_LOSSES)
    iou_normalizer: float = option(0.75, "factor on the box gradient")
    obj_normalizer: float = option(1.0, "factor on the objectness gradient")
    cls_normalizer: float = option(1.0, "factor on the gradient of the target class; needs counters_per_class")
    delta_normalizer: float = option(1.0, "factor on all gradients of the head")
    max_delta: float = option(NO_LIMIT, "largest box gradient, and largest class factor of counters_per_class")
    ignore_thresh: float = option(0.5, "a box with a higher IoU than this is not trained as background")
    truth_thresh: float = option(1.0, "a box with a higher IoU than this is trained on that object")
    iou_thresh: float = option(1.0, "an object is also assigned to anchors with a higher IoU than this")
    iou_thresh_kind: str = option("iou", "kind of IoU that iou_thresh compares", choices=IOU_KINDS)
    counters_per_class: tuple[int, ...] | None = option(
        None, "number of objects of each class, to balance rare classes"
    )
    label_smooth_eps: float = option(0.0, "label smoothing of the classes")
    objectness_smooth: bool = option(False, "use the IoU as the objectness target")
    nms_kind: str = option("default", "kind of NMS", choices=NMS_KINDS, otherwise="default")
    beta_nms: float = option(0.6, "exponent of the distance term in nms_kind=diounms")
    map: str | None = option(None, "training: file that maps the classes of the labels, one class number per line")

    @property
    def indices(self) -> tuple[int, ...]:
        """Indices of this head's anchors in the list of all anchors."""
        return tuple(range(self.num)) if self.mask is None else self.mask

    @property
    def anchor_count(self) -> int:
        """Number of anchors of all heads: `num`, or more if the mask names later ones that are in the list.

        A published cfg has num=16 and uses 20; there the original reads beyond the end of its array.
        """
        given = len(self.anchors or ()) // 2
        return max(self.num, min(given, max(self.indices) + 1))

    @property
    def anchor_sizes(self) -> tuple[tuple[float, float], ...]:
        """Width and height in pixels of all anchors."""
        return pairs(self.anchors, self.anchor_count)

    @property
    def own_sizes(self) -> tuple[tuple[float, float], ...]:
        """Width and height in pixels of this head's anchors."""
        sizes = self.anchor_sizes
        return tuple(sizes[index] for index in self.indices)

    def suppression(self) -> tuple[str, float]:
        return self.nms_kind, self.beta_nms

    def shape(self, site: Site) -> Shape:
        check_mask(site, self.indices, self.anchor_count)
        check_sizes(site, self.anchors, self.anchor_count)
        counters = self.counters_per_class
        if counters is not None and len(counters) != self.classes:
            text = f"counters_per_class: has {len(counters)} values, expected one for each of {self.classes} classes"
            raise site.error(text, "counters_per_class")
        check_filters(site, self.filters, f"{len(self.indices)} anchors (mask) and classes={self.classes}")
        return site.input

    def reported_shape(self, site: Site) -> Shape:
        return site.input

    def detail(self, site: Site) -> str:
        return anchors_text(self.own_sizes)

"""Anchors in a cfg: reading the list, and the checks that every head with anchors makes when it is planned."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.heads.base import NO_LIMIT, BoxSection
from models.layers.base import Shape, Site
from utils.errors import HeadWidthError, InputError
from utils.files import read_text
from utils.options import option

logger = logging.getLogger(__name__)

DEFAULT_SIZE = 0.5  # of an anchor that is not given: make_yolo_layer, make_region_layer


def pairs(values: Sequence[float] | None, count: int) -> tuple[tuple[float, float], ...]:
    """`count` (width, height) from the flat list of the cfg; what the list lacks has DEFAULT_SIZE, as in the original."""
    given = [*(values or ())][: 2 * count]
    given += [DEFAULT_SIZE] * (2 * count - len(given))
    return tuple(zip(given[::2], given[1::2], strict=True))


def check_sizes(site: Site, values: Sequence[float] | None, count: int) -> None:
    """Raises CfgError for a size that is not above zero; warns if the list is shorter or longer than `count` anchors.

    Published cfgs have lists with a comma forgotten; the original reads them, and so do we.
    """
    if values is None:
        return
    wrong = [value for value in values[: 2 * count] if value <= 0]
    if wrong:
        raise site.error(f"anchors: {wrong[0]:g} is out of range, expected sizes above 0", "anchors")
    if len(values) != 2 * count:
        effect = f"the missing ones are {DEFAULT_SIZE}" if len(values) < 2 * count else "the last ones are not used"
        raw = site.raw
        text = "%s:%d: [%s] anchors: has %d values, expected 2 for each of %d anchors; %s"
        entry = raw.find("anchors")
        logger.warning(text, raw.path, entry.line if entry else raw.line, raw.name, len(values), count, effect)


def check_mask(site: Site, indices: Sequence[int], count: int) -> None:
    """Raises CfgError if an index of `mask` is not an anchor or stands there twice."""
    for index in indices:
        if not 0 <= index < count:
            raise site.error(f"mask: there is no anchor {index}, expected 0 to {count - 1}", "mask")
    if len(set(indices)) < len(indices):
        raise site.error("mask: an anchor stands there twice", "mask")


def check_filters(site: Site, filters: int, because: str) -> None:
    """Raises CfgError if the layer before has another number of channels than the head needs."""
    if site.input.channels != filters:
        found = site.input.channels
        text = f"reads {found} channels, expected filters={filters} in the layer before it for {because}"
        raise HeadWidthError(site.error(text), site.index, "filters", filters)


def read_class_map(name: str, cfg_path: str) -> list[int]:
    """The class number on each line of a map file (utils.c read_map)."""
    path = beside(name, cfg_path)
    classes = []
    for number, line in enumerate(read_text(path, "class map").splitlines(), start=1):
        try:
            classes.append(int(line))
        except ValueError:
            raise InputError(f"{path}:{number}: cannot read {line[:40]!r}, expected a class number") from None
    return classes


def beside(name: str, cfg_path: str) -> Path:
    """A file that a cfg names: as it stands, else seen from the cfg's folder or the folder above it.

    The original looks from the folder it is started in only, which usually is the one above `cfg/`.
    """
    folder = Path(cfg_path).resolve().parent
    tried = (Path(name), folder / name, folder.parent / name)
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        raise InputError(f"{cfg_path}: names {name}, which is neither here nor in {folder} nor in {folder.parent}")
    return found


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
        return pairs(self.anchors, self.anchor_count)

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

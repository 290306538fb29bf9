"""[yolo]: boxes from anchors in a grid, independent class probabilities (yolo_layer.c, YOLOv3 to v4)."""

from __future__ import annotations

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

    def forward(self, x: Tensor) -> Tensor:
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


OBJECTNESS = 4


@dataclass(frozen=True)
class YoloDelta:
    """delta: (n, anchors, 5 + classes, h, w). targets: what was taught. no_object: mean objectness of all boxes."""

    delta: Tensor
    targets: Targets
    no_object: Tensor


def yolo_delta(
    section: YoloSection,
    cells: Tensor,
    truths: Truths,
    boxes: Boxes,
    class_map: Sequence[int] | None,
    size_wh: tuple[int, int],
) -> YoloDelta:
    """Delta for outputs `cells` (n, anchors, 5 + classes, h, w), which may be changed; boxes: Yolo.boxes."""
    objectness = cells[:, :, OBJECTNESS]
    objectness.copy_(torch.where(objectness.isfinite(), objectness, 0.0))
    delta, near, taught = background(section, cells, OBJECTNESS, truths, boxes, size_wh)
    if section.objectness_smooth:
        _teach_overlap(section.obj_normalizer, objectness, delta, near)
    own = assigned(section, truths, truths.cxcywh_rel[:, :2], grid_of(cells), size_wh)
    targets = gather_targets(cells, truths, [taught], own, boxes, class_map, size_wh)
    rule = class_rule(section, focal=section.focal_loss)
    lessons = _lessons(section, targets, rule.factor(targets.class_ids), grid_of(cells), size_wh)
    places, state = teach(cells, delta, lessons, rule, OBJECTNESS)
    if section.iou_thresh < 1:
        state = average_boxes(state, OBJECTNESS, state[:, OBJECTNESS] != 0)
    return YoloDelta(put(delta, places, state), targets, objectness.mean())


def _teach_overlap(normalizer: float, objectness: Tensor, delta: Tensor, near: Found) -> None:
    """objectness_smooth: boxes that are left alone otherwise learn their overlap, unless that would lower them more."""
    places = (near.places.image, near.places.anchor, near.places.row, near.places.col)
    found = objectness[places]
    delta[:, :, OBJECTNESS][places] = normalizer * torch.maximum(near.overlap - found, -found)


def _lessons(
    section: YoloSection, targets: Targets, factor: Tensor, grid_wh: tuple[int, int], size_wh: tuple[int, int]
) -> TargetDeltas:
    rows, own = targets.rows, targets.assigned
    smooth = section.objectness_smooth
    goal = targets.overlap.square() if smooth else torch.ones_like(factor)
    objectness = section.obj_normalizer * (goal - rows[:, OBJECTNESS])
    mine = rows[:, OBJECTNESS + 1 :].gather(1, targets.class_ids[:, None])[:, 0]
    box = _mse_delta if section.iou_loss == "mse" else _overlap_delta
    return TargetDeltas(
        places=targets.places,
        box=box(section, targets, factor * section.iou_normalizer, grid_wh, size_wh),
        objectness=torch.where(own, objectness * factor, objectness),
        yields=own & smooth,
        class_ids=targets.class_ids,
        class_value=torch.where(own | (not smooth), torch.nan, factor * (goal - mine)),
    )


def _mse_delta(
    section: YoloSection, targets: Targets, factor: Tensor, grid_wh: tuple[int, int], size_wh: tuple[int, int]
) -> Tensor:
    """delta_yolo_box, the old loss: squared distance of the entries. A truth of zero size teaches no size."""
    wanted, rows = targets.wanted, targets.rows
    sizes = rows.new_tensor([section.anchor_sizes[index] for index in section.indices])[targets.places.anchor]
    corner = torch.stack((targets.places.col, targets.places.row), 1)
    centre = wanted[:, :2] * wanted.new_tensor(grid_wh) - corner
    ratio = wanted[:, 2:] * wanted.new_tensor(size_wh) / sizes
    size = (ratio / 4).sqrt() if section.new_coords else ratio.log()
    scale = (2 - wanted[:, 2] * wanted[:, 3]) * factor
    return finite(scale[:, None] * (torch.cat((centre, size), 1) - rows[:, :4]), torch.inf)


def _overlap_delta(
    section: YoloSection, targets: Targets, factor: Tensor, grid_wh: tuple[int, int], size_wh: tuple[int, int]
) -> Tensor:
    """delta_yolo_box with IoU, GIoU, DIoU or CIoU; a size that is zero counts as 1 there."""
    found = targets.found
    size = torch.where(found[:, 2:] == 0, 1.0, found[:, 2:])
    gradient = box_gradient(torch.cat((found[:, :2], size), 1), targets.wanted, section.iou_loss)
    if not section.new_coords:
        gradient = torch.cat((gradient[:, :2], gradient[:, 2:] * targets.rows[:, 2:4].exp()), 1)
    return finite(gradient * factor[:, None], section.max_delta)


def yolo_loss(section: YoloSection, x: Tensor, result: YoloDelta) -> HeadLoss:
    """The loss with the original's cost: squares of all deltas, or the mean of 1 - IoU in place of those of the boxes."""
    delta, targets = result.delta, result.targets
    count = int(targets.assigned.sum())
    square = delta.square()
    sums = [square[:, :, :OBJECTNESS].sum(), square[:, :, OBJECTNESS].sum(), square[:, :, OBJECTNESS + 1 :].sum()]
    found, wanted = targets.found[targets.assigned], targets.wanted[targets.assigned]
    rows, ids = targets.rows[targets.assigned], targets.class_ids[targets.assigned]
    overlap = iou(found, wanted)
    measures = [
        overlap,
        giou(found, wanted),
        rows[:, OBJECTNESS],
        rows[:, OBJECTNESS + 1 :].gather(1, ids[:, None])[:, 0],
        (overlap > 0.5).float(),
        (overlap > 0.75).float(),
    ]
    means = torch.stack(measures, 1).sum(0) / max(count, 1)
    numbers = torch.cat((torch.stack((*sums, result.no_object)), means)).tolist()
    box, objectness, classes, no_object, *averages = numbers
    terms = _terms(section, box, objectness, classes, averages[:2], count)
    cost = sum(terms.values())
    names = ("iou", "giou", "objectness", "class", "recall50", "recall75")
    printed = _printed(section, box, objectness + classes, len(delta))
    return HeadLoss(
        value=loss_value(x, delta, delta.new_tensor(cost)),
        cost=cost,
        terms=terms,
        averages=dict(zip(names, averages, strict=True)) | {"no_object": no_object} | printed,
        targets=count,
        factor=section.delta_normalizer,
    )


def _terms(
    section: YoloSection, box: float, objectness: float, classes: float, overlaps: Sequence[float], count: int
) -> dict[str, float]:
    if section.iou_loss == "mse" or not section.show_details:
        return {"box": box, "objectness": objectness, "class": classes}
    mean = overlaps[1] if section.iou_loss == "giou" else overlaps[0]
    normalizer = section.obj_normalizer
    return {
        "box": section.iou_normalizer * (1 - mean) if count else 0.0,
        "objectness": normalizer * objectness,
        "class": normalizer * classes,
    }


def _printed(section: YoloSection, box: float, others: float, images: int) -> dict[str, float]:
    """The three losses of the line that the original prints, per image."""
    class_loss = section.obj_normalizer * others
    total = box + others
    return {
        "class_loss": class_loss / images,
        "iou_loss": (total - class_loss) / images,
        "total_loss": total / images,
    }

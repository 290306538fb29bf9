"""[yolo]: boxes from anchors in a grid, independent class probabilities (yolo_layer.c, YOLOv3 to v4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models.heads.anchor_head import AnchorHead, ClassLoss, TargetDeltas, Targets, finite
from models.heads.anchors import AnchorSection
from models.heads.base import HeadLoss, make_loss, to_floats
from models.heads.grid import GridValues, Locations, grid_of, write_entries
from models.heads.matching import GroundTruth
from models.layers.base import Site
from models.onnx_graph import Graph
from utils.boxes import giou, iou
from utils.options import ignored, option

_TRACKING = "tracking is not supported"
_NOT_READ = "the original does not read it here either"
OBJECTNESS = 4
NO_EMBEDDING = 999999
"""Value of embedding_layer that means no tracking."""


@dataclass(frozen=True, kw_only=True)
class YoloSection(AnchorSection):
    """Boxes from anchors in a grid, with independent class probabilities (yolo_layer.c, YOLOv3 to v4)."""

    names: ClassVar[tuple[str, ...]] = ("yolo",)

    new_coords: bool = option(
        False, "no activation here, the previous layer ends with a logistic one; sizes are squared"
    )
    focal_loss: bool = option(False, "focal loss of the classes")
    show_details: bool = option(True, "0: report the sum of all squared gradients as the cost")
    embedding_layer: int = ignored(NO_EMBEDDING, _TRACKING)
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


class Yolo(AnchorHead):
    """Input and output (n, anchors * (5 + classes), h, w); the entries of an anchor are x, y, w, h, objectness, classes."""

    objectness_at = OBJECTNESS
    adversarial_classes = True
    section: YoloSection
    is_size: Tensor
    factor: Tensor
    shift: Tensor

    def __init__(self, section: YoloSection, site: Site) -> None:
        super().__init__(section, site)
        entry = torch.arange(section.filters).view(1, -1, 1, 1) % (section.classes + 5)
        scale = section.scale_x_y
        self.register_buffer("is_size", (entry == 2) | (entry == 3), persistent=False)
        self.register_buffer("factor", torch.where(entry < 2, scale, 1.0), persistent=False)
        self.register_buffer("shift", torch.where(entry < 2, -0.5 * (scale - 1), 0.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply a logistic to all entries but w and h, then scale_x_y to x and y (yolo_layer.c forward_yolo_layer)."""
        y = x.float()
        if not self.section.new_coords:
            y = torch.where(self.is_size, y, y.sigmoid())
        return y if self.section.scale_x_y == 1 else y * self.factor + self.shift

    def boxes(self, entries: Tensor, at: Locations, grid_wh: tuple[int, int], size_wh: tuple[int, int]) -> Tensor:
        """yolo_layer.c get_yolo_box."""
        sizes = entries.new_tensor(self.own_sizes)[at.anchor]
        spread = entries[:, 2:4].square() * 4 if self.section.new_coords else entries[:, 2:4].exp()
        centre = (at.corner + entries[:, :2]) / entries.new_tensor(grid_wh)
        return torch.cat((centre, spread * sizes / entries.new_tensor(size_wh)), 1)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        section = self.section
        cells = self.export_entries(graph, inputs[0], site)
        xy, wh, rest = (graph.slice(cells, 2, *ends) for ends in ((0, 2), (2, 4), (4, None)))
        if not section.new_coords:
            xy, rest = graph.node("Sigmoid", xy), graph.node("Sigmoid", rest)
        if section.scale_x_y != 1:
            xy = graph.node("Sub", graph.node("Mul", xy, section.scale_x_y), 0.5 * (section.scale_x_y - 1))
        return self.export_output(graph, site, (xy, wh, rest), inputs[0])

    def export_coordinates(self, graph: Graph, entries: str, grid: GridValues) -> str:
        centre = graph.node("Div", graph.node("Add", graph.slice(entries, 3, 0, 2), grid.corner), grid.count)
        wh = graph.slice(entries, 3, 2, 4)
        double = graph.node("Mul", wh, 2.0)
        spread = graph.node("Mul", double, double) if self.section.new_coords else graph.node("Exp", wh)
        sizes = graph.constant([[self.own_sizes]])
        return graph.concat([centre, graph.node("Div", graph.node("Mul", spread, sizes), grid.size_wh)], 3)

    def delta(self, cells: Tensor, ground_truth: GroundTruth, size_wh: tuple[int, int]) -> tuple[Tensor, Targets]:
        section, objectness = self.section, cells[:, :, OBJECTNESS]
        objectness.copy_(torch.where(objectness.isfinite(), objectness, 0.0))
        delta, near, matched = self.background_delta(cells, ground_truth, size_wh)
        if section.objectness_smooth:  # ignored boxes learn their IoU, unless that would lower them more
            predicted = objectness[near.at]
            change = torch.maximum(near.overlap - predicted, -predicted)
            delta[:, :, OBJECTNESS][near.at] = section.obj_normalizer * change
        targets = self.assign_targets(cells, ground_truth, [matched], ground_truth.cxcywh_rel[:, :2], size_wh)
        class_loss = ClassLoss.of(section, focal=section.focal_loss)
        deltas = self._target_deltas(targets, class_loss.factor(targets.class_ids), grid_of(cells), size_wh)
        locations, state = self.apply_targets(cells, delta, deltas, class_loss)
        if section.iou_thresh < 1:
            state = self.average_boxes(state, state[:, OBJECTNESS] != 0)
        return write_entries(delta, locations, state), targets

    def _target_deltas(
        self, targets: Targets, factor: Tensor, grid_wh: tuple[int, int], size_wh: tuple[int, int]
    ) -> TargetDeltas:
        section, smooth, assigned = self.section, self.section.objectness_smooth, targets.assigned
        goal = targets.overlap.square() if smooth else torch.ones_like(factor)
        objectness = section.obj_normalizer * (goal - targets.entries[:, OBJECTNESS])
        box_factor = factor * section.iou_normalizer
        if section.iou_loss == "mse":
            box = self._mse_delta(targets, box_factor, grid_wh, size_wh)
        else:
            box = self._iou_delta(targets, box_factor)
        return TargetDeltas(
            at=targets.at,
            box=box,
            objectness=torch.where(assigned, objectness * factor, objectness),
            keeps=assigned & smooth,
            class_ids=targets.class_ids,
            class_value=torch.where(
                assigned | (not smooth), torch.nan, factor * (goal - self.target_probability(targets))
            ),
        )

    def _mse_delta(
        self, targets: Targets, factor: Tensor, grid_wh: tuple[int, int], size_wh: tuple[int, int]
    ) -> Tensor:
        """Box delta (k, 4) of the squared error (delta_yolo_box); a width or height of 0 does not train the size."""
        wanted, entries, at = targets.wanted, targets.entries, targets.at
        sizes = entries.new_tensor(self.own_sizes)[at.anchor]
        centre = wanted[:, :2] * wanted.new_tensor(grid_wh) - at.corner
        ratio = wanted[:, 2:] * wanted.new_tensor(size_wh) / sizes
        size = (ratio / 4).sqrt() if self.section.new_coords else ratio.log()
        scale = (2 - wanted[:, 2] * wanted[:, 3]) * factor
        return finite(scale[:, None] * (torch.cat((centre, size), 1) - entries[:, :4]), torch.inf)

    def _iou_delta(self, targets: Targets, factor: Tensor) -> Tensor:
        """Box delta (k, 4) of the IoU, GIoU, DIoU or CIoU loss (delta_yolo_box)."""
        gradient = self.overlap_gradient(targets)
        if not self.section.new_coords:
            gradient = torch.cat((gradient[:, :2], gradient[:, 2:] * targets.entries[:, 2:4].exp()), 1)
        return finite(gradient * factor[:, None], self.section.max_delta)

    def report(self, x: Tensor, delta: Tensor, targets: Targets, no_object: Tensor) -> HeadLoss:
        """Loss with the original's cost: squares of all deltas, or for the box part the mean of 1 - IoU instead."""
        section, assigned = self.section, targets.assigned
        predicted, wanted = targets.predicted[assigned], targets.wanted[assigned]
        overlap = iou(predicted, wanted)
        measures = {
            "iou": overlap,
            "giou": giou(predicted, wanted),
            "objectness": targets.entries[assigned, OBJECTNESS],
            "class": self.target_probability(targets)[assigned],
            "recall50": (overlap > 0.5).float(),
            "recall75": (overlap > 0.75).float(),
        }
        terms, averages = to_floats(self.squares(delta), measures, no_object)
        averages |= _printed(section, terms, len(delta))
        if section.iou_loss != "mse" and section.show_details:
            mean = averages["giou" if section.iou_loss == "giou" else "iou"]
            terms = {
                "box": section.iou_normalizer * (1 - mean) if len(overlap) else 0.0,
                "objectness": section.obj_normalizer * terms["objectness"],
                "class": section.obj_normalizer * terms["class"],
            }
        return make_loss(x, delta, terms, averages, len(overlap), section.delta_normalizer)


def _printed(section: YoloSection, squares: dict[str, float], images: int) -> dict[str, float]:
    """The three losses per image, as in the line that the original prints."""
    class_loss = section.obj_normalizer * (squares["objectness"] + squares["class"])
    total = squares["box"] + (squares["objectness"] + squares["class"])
    return {
        "class_loss": class_loss / images,
        "iou_loss": (total - class_loss) / images,
        "total_loss": total / images,
    }

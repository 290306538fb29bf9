"""[detection]: boxes of the first YOLO, from fully connected layers (detection_layer.c; arXiv:1506.02640)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.heads.base import BoxSection, Candidates, DenseBoxes, Head, HeadLoss, make_loss, to_floats
from models.heads.matching import GroundTruth, cells_of, read_ground_truth
from models.layers.base import Shape, Site
from models.onnx_graph import Graph
from utils.boxes import iou
from utils.errors import HeadWidthError
from utils.options import ignored, option, warn

SMALL = 0.1  # with `forced`: objects smaller than this fraction of the image are assigned to box 1
RANDOM_IMAGES = 64_000  # with `random`: for this many images, any box of a cell may be trained on its object


@dataclass(frozen=True, kw_only=True)
class DetectionSection(BoxSection):
    """Boxes of the first YOLO, from fully connected layers (detection_layer.c; arXiv:1506.02640)."""

    names: ClassVar[tuple[str, ...]] = ("detection",)

    classes: int = option(1, "number of classes", least=1)
    max_truths: int = ignored(200, "a cell has one object at most, there is no other limit", key="max")
    side: int = option(7, "cells of the grid in each direction", least=1, most=10_000)
    num: int = option(1, "boxes per cell", least=1, most=10_000)
    coords: int = option(1, "values per box; boxes are decoded and trained with 4 only", least=0)
    softmax: bool = option(False, "softmax over the classes")
    sqrt: bool = option(False, "width and height are predicted as square roots")
    rescore: bool = option(False, "use the IoU as the objectness target")
    forced: bool = option(False, "training: box 1 for small objects, box 0 for the others")
    coord_scale: float = option(1.0, "factor on the box gradient")
    object_scale: float = option(1.0, "factor on the objectness gradient of boxes with an object")
    noobject_scale: float = option(1.0, "factor on the objectness gradient of background boxes")
    class_scale: float = option(1.0, "factor on the class gradient")
    reorg: int = ignored(0, "the original reads it and does not use it")

    @property
    def filters(self) -> int:
        """Number of values per image that the previous layer must have."""
        return self.side**2 * ((1 + self.coords) * self.num + self.classes)

    def shape(self, site: Site) -> Shape:
        if self.forced and self.num < 2:
            raise site.error("forced: assigns small objects to box 1, expected num of at least 2", "forced")
        if site.input.outputs != self.filters:
            sizes = f"side={self.side}, num={self.num}, classes={self.classes}"
            found = site.input.outputs
            text = f"reads {found} values, expected output={self.filters} in the layer before it for {sizes}"
            raise HeadWidthError(site.error(text), site.index, "output", self.filters)
        if self.coords != 4:
            text = f"coords: {self.coords} instead of 4; the network runs, but its boxes can be neither decoded nor trained"
            warn(site.raw, site.raw.find("coords"), text)
        return site.input

    def detail(self, site: Site) -> str:
        return f"{self.side}x{self.side} cells of {self.num} boxes"

    def build(self, site: Site) -> Detection:
        return Detection(self, site)


class Parts(NamedTuple):
    """Output of [detection] in parts: classes (n, cells, classes), objectness (n, cells, num), box (n, cells, num, 4)."""

    classes: Tensor
    objectness: Tensor
    box: Tensor


class CellTargets(NamedTuple):
    """At most one object per cell.

    present: bool (n, cells), whether the cell has an object.
    classes: (n, cells, classes).
    box: (n, cells, 4); x, y in cells from the cell's corner, w, h relative to the image.
    """

    present: Tensor
    classes: Tensor
    box: Tensor


class Detection(Head):
    """Input and output (n, values, 1, 1): classes of every cell, objectness of every box, then x, y, w, h of every box.

    x and y are in cells from the cell's corner; w and h are relative to the image, or the square roots of that.
    """

    def __init__(self, section: DetectionSection, site: Site) -> None:
        super().__init__()
        self.section = section
        self.draws = bool(section.random)
        self.refusal = (
            None if section.coords == 4 else site.error(f"coords: is {section.coords}, boxes need 4", "coords")
        )

    def forward(self, x: Tensor) -> Tensor:
        """Copy the input, optionally with a softmax over the classes (detection_layer.c forward_detection_layer)."""
        if not self.section.softmax:
            return x.float()
        parts = self.parts(x.float())
        classes = parts.classes.softmax(2)
        values = [part.flatten(1) for part in (classes, parts.objectness, parts.box)]
        return torch.cat(values, 1).reshape(x.shape)

    def parts(self, output: Tensor) -> Parts:
        """Split an output into its parts, without copying."""
        section = self.section
        n, cells = len(output), section.side**2
        flat = output.reshape(n, -1)
        sizes = (cells * section.classes, cells * section.num, cells * section.num * section.coords)
        classes, objectness, box = flat.split(sizes, 1)
        return Parts(classes.view(n, cells, -1), objectness.view(n, cells, -1), box.view(n, cells, section.num, -1))

    def require_boxes(self) -> None:
        """Raise CfgError if boxes do not have 4 coordinates."""
        if self.refusal is not None:
            raise self.refusal

    def decode(self, output: Tensor, threshold: float, size_wh: tuple[int, int]) -> Candidates:
        dense = self.dense(output, size_wh)
        scores = torch.where(dense.scores > threshold, dense.scores, 0.0)
        image, box = (scores > 0).any(2).nonzero().unbind(1)
        return Candidates(image, dense.cxcywh_rel[image, box], scores[image, box], dense.objectness[image, box])

    def dense(self, output: Tensor, size_wh: tuple[int, int]) -> DenseBoxes:
        """detection_layer.c get_detection_detections."""
        self.require_boxes()
        side = self.section.side
        parts = self.parts(output.float())
        cells = torch.arange(side * side, device=output.device)
        corner = torch.stack((cells % side, cells // side), 1)[None, :, None]
        size = parts.box[..., 2:4]
        box = torch.cat(((parts.box[..., :2] + corner) / side, size.square() if self.section.sqrt else size), 3)
        scores = parts.objectness[..., None] * parts.classes[:, :, None]
        return DenseBoxes(box.flatten(1, 2), scores.flatten(1, 2), parts.objectness.flatten(1, 2))

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        section = self.section
        if not section.softmax:
            return inputs[0]
        flat = graph.reshape(inputs[0], 0, site.input.outputs)
        count = section.side**2 * section.classes
        classes = graph.reshape(graph.slice(flat, 1, 0, count), 0, section.side**2, section.classes)
        probabilities = graph.reshape(graph.node("Softmax", classes, axis=2), 0, count)
        whole = graph.concat([probabilities, graph.slice(flat, 1, count)], 1)
        return graph.reshape(whole, 0, site.input.channels, site.input.height, site.input.width)

    def export_boxes(self, graph: Graph, site: Site, output: str) -> tuple[str, str]:
        self.require_boxes()
        section, cells = self.section, self.section.side**2
        flat = graph.reshape(output, 0, site.input.outputs)
        first, second = cells * section.classes, cells * (section.classes + section.num)
        classes = graph.reshape(graph.slice(flat, 1, 0, first), 0, cells, 1, section.classes)
        objectness = graph.reshape(graph.slice(flat, 1, first, second), 0, cells, section.num, 1)
        box = graph.reshape(graph.slice(flat, 1, second), 0, cells, section.num, 4)
        rows, columns = np.divmod(np.arange(cells), section.side)
        corner = graph.constant(np.stack((columns, rows), 1)[None, :, None])
        centre = graph.node("Div", graph.node("Add", graph.slice(box, 3, 0, 2), corner), float(section.side))
        size = graph.slice(box, 3, 2, 4)
        boxes = graph.concat([centre, graph.node("Mul", size, size) if section.sqrt else size], 3)
        scores = graph.node("Mul", objectness, classes)
        return graph.reshape(boxes, 0, -1, 4), graph.reshape(scores, 0, -1, section.classes)

    def loss(self, x: Tensor, labels: Tensor, size_wh: tuple[int, int], seen: int) -> HeadLoss:
        self.require_boxes()
        section = self.section
        ground_truth = read_ground_truth(labels.to(x.device), labels.shape[1], section.classes)
        return self.cell_loss(x, cell_targets(ground_truth, len(x), section.side, section.classes), seen)

    def cell_loss(self, x: Tensor, targets: CellTargets, seen: int) -> HeadLoss:
        """Loss for at most one target per cell; the cost is the sum of squares of all deltas, as in the original."""
        section = self.section
        with torch.no_grad():
            parts = self.parts(self(x))
            at = targets.present.nonzero(as_tuple=True)
            wanted, predicted = targets.box[at], parts.box[at]  # (k, 4), (k, num, 4)
            root = wanted[:, 2:].sqrt() if section.sqrt else wanted[:, 2:]
            overlap, chosen = self._choose(predicted, wanted, seen)
            order = torch.arange(len(chosen), device=chosen.device)
            box = torch.zeros_like(parts.box)
            change = torch.cat((wanted[:, :2], root), 1) - predicted[order, chosen]
            cell = (*at, chosen)
            box[cell] = section.coord_scale * change
            objectness = -section.noobject_scale * parts.objectness
            own, best = parts.objectness[cell], overlap[order, chosen]
            goal = best if section.rescore else torch.ones_like(best)
            objectness[cell] = section.object_scale * (goal - own)
            probabilities, target = parts.classes[at], targets.classes[at]
            classes = torch.zeros_like(parts.classes)
            classes[at] = section.class_scale * (target - probabilities)
            sums = {"box": box.square().sum(), "objectness": objectness.square().sum(), "class": classes.square().sum()}
            measures = {
                "iou": best,
                "objectness": own,
                "class": (probabilities * (target != 0)).sum(1),
                "any_class": probabilities.mean(1),
                "recall50": (best > 0.5).float(),
            }
            delta = torch.cat([each.flatten(1) for each in (classes, objectness, box)], 1)
        terms, averages = to_floats(sums, measures, parts.objectness.mean())
        return make_loss(x, delta, terms, averages, len(best))

    def _choose(self, predicted: Tensor, wanted: Tensor, seen: int) -> tuple[Tensor, Tensor]:
        """IoU (k, num) of the boxes of each cell with its object, and the index (k,) of the box to train on it.

        This is the box with the highest IoU or, if none overlaps, the one with the closest values.
        """
        section = self.section
        scale = wanted.new_tensor((1 / section.side, 1 / section.side, 1.0, 1.0))
        size = predicted[..., 2:].square() if section.sqrt else predicted[..., 2:]
        boxes = torch.cat((predicted[..., :2], size), 2) * scale
        target = (wanted * scale)[:, None]
        overlap = iou(boxes, target).nan_to_num(0.0)
        if section.random and seen < RANDOM_IMAGES:
            return overlap, torch.randint(section.num, (len(predicted),), device=predicted.device)
        if section.forced:
            return overlap, (wanted[:, 2] * wanted[:, 3] < SMALL).long()
        distance = (boxes - target).square().sum(2)
        return overlap, torch.where((overlap > 0).any(1), overlap.argmax(1), distance.argmin(1))


def cell_targets(ground_truth: GroundTruth, images: int, side: int, classes: int) -> CellTargets:
    """Arrange the ground truth in a grid; of several objects in one cell, the first counts."""
    centre, size = ground_truth.cxcywh_rel[:, :2], ground_truth.cxcywh_rel[:, 2:]
    col, row = cells_of(centre, (side, side))
    cell = ground_truth.image * side * side + row * side + col
    order = torch.arange(len(cell), device=cell.device)
    first = torch.full((images * side * side,), len(cell), device=cell.device)
    first = first.scatter_reduce(0, cell, order, "amin")
    present = first < len(cell)
    chosen = first[present]
    corner = torch.stack((col, row), 1)[chosen]
    boxes = centre.new_zeros(len(first), 4)
    boxes[present] = torch.cat((centre[chosen] * side - corner, size[chosen]), 1)
    one_hot = boxes.new_zeros(len(first), classes)
    one_hot[present.nonzero()[:, 0], ground_truth.class_ids[chosen]] = 1.0
    shape = (images, side * side)
    return CellTargets(present.view(shape), one_hot.view(*shape, -1), boxes.view(*shape, 4))

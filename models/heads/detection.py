"""[detection]: boxes of the first YOLO, from fully connected layers (detection_layer.c; arXiv:1506.02640)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.export.graph import Graph
from models.heads.base import BoxSection, Candidates, DenseBoxes, Head, HeadLoss
from models.heads.detection_loss import cell_truths, detection_delta, detection_loss
from models.heads.matching import read_truths
from models.layers.base import Shape, Site
from utils.options import ignored, option


@dataclass(frozen=True, kw_only=True)
class DetectionSection(BoxSection):
    names: ClassVar[tuple[str, ...]] = ("detection",)

    classes: int = option(1, "number of classes", least=1)
    max_truths: int = ignored(200, "a cell holds one truth, there is no other limit", key="max")
    side: int = option(7, "cells of the grid in each direction", least=1, most=10_000)
    num: int = option(1, "boxes of each cell", least=1, most=10_000)
    coords: int = option(1, "coordinates of a box; only 4 works", least=4, most=4)
    softmax: bool = option(False, "softmax over the classes")
    sqrt: bool = option(False, "width and height are predicted as square roots")
    rescore: bool = option(False, "the overlap is the target of the objectness")
    forced: bool = option(False, "training: box 1 for small objects, box 0 for the others")
    coord_scale: float = option(1.0, "factor on the gradient of the boxes")
    object_scale: float = option(1.0, "factor on the gradient of the objectness where a truth is")
    noobject_scale: float = option(1.0, "factor on the gradient of the objectness where none is")
    class_scale: float = option(1.0, "factor on the gradient of the classes")
    reorg: int = ignored(0, "the original reads it and does not use it")

    @property
    def filters(self) -> int:
        """Values for one picture that the layer before must have."""
        return self.side**2 * ((1 + self.coords) * self.num + self.classes)

    def shape(self, site: Site) -> Shape:
        if self.coords != 4:
            raise site.error(f"coords: expected coords=4, it is {self.coords}")
        if self.forced and self.num < 2:
            raise site.error("forced: puts small objects into box 1, expected num of at least 2", "forced")
        if site.input.outputs != self.filters:
            sizes = f"side={self.side}, num={self.num}, classes={self.classes}"
            found = site.input.outputs
            raise site.error(f"reads {found} values, expected output={self.filters} in the layer before it for {sizes}")
        return site.input

    def reported_shape(self, site: Site) -> Shape:
        return Shape(0, 0, 0)

    def build(self, site: Site) -> Detection:
        return Detection(self)


class Parts(NamedTuple):
    """Output of [detection] taken apart: classes (n, cells, classes), objectness (n, cells, num), box (n, cells, num, 4)."""

    classes: Tensor
    objectness: Tensor
    box: Tensor


class Detection(Head):
    """Values of a picture: classes of every cell, objectness of every box, x, y, w, h of every box.

    x, y in cells from the cell's corner; w, h in parts of the picture, or their square roots. Shapes (n, values, 1, 1).
    """

    def __init__(self, section: DetectionSection) -> None:
        super().__init__()
        self.section = section

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """detection_layer.c forward_detection_layer: a copy, with softmax over the classes if asked for."""
        if not self.section.softmax:
            return x.float()
        parts = self.parts(x.float())
        classes = parts.classes.softmax(2)
        values = [part.flatten(1) for part in (classes, parts.objectness, parts.box)]
        return torch.cat(values, 1).reshape(x.shape)

    def parts(self, output: Tensor) -> Parts:
        """The parts of an output, without a copy."""
        section = self.section
        n, cells = len(output), section.side**2
        flat = output.reshape(n, -1)
        sizes = (cells * section.classes, cells * section.num, cells * section.num * section.coords)
        classes, objectness, box = flat.split(sizes, 1)
        return Parts(classes.view(n, cells, -1), objectness.view(n, cells, -1), box.view(n, cells, section.num, -1))

    def decode(self, output: Tensor, threshold: float, size_wh: tuple[int, int]) -> Candidates:
        dense = self.dense(output, size_wh)
        scores = torch.where(dense.scores > threshold, dense.scores, 0.0)
        image, place = (scores > 0).any(2).nonzero().unbind(1)
        return Candidates(image, dense.cxcywh_rel[image, place], scores[image, place], dense.objectness[image, place])

    def dense(self, output: Tensor, size_wh: tuple[int, int]) -> DenseBoxes:
        """detection_layer.c get_detection_detections."""
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
        shares = graph.reshape(graph.node("Softmax", classes, axis=2), 0, count)
        whole = graph.concat([shares, graph.slice(flat, 1, count)], 1)
        return graph.reshape(whole, 0, site.input.channels, site.input.height, site.input.width)

    def export_boxes(self, graph: Graph, site: Site, output: str) -> tuple[str, str]:
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

    def loss(self, x: Tensor, truth: Tensor, size_wh: tuple[int, int], seen: int) -> HeadLoss:
        section = self.section
        with torch.no_grad():
            output = self(x)
            truths = read_truths(truth.to(output.device), truth.shape[1], section.classes)
            cells = cell_truths(truths, len(x), section.side, section.classes)
            result = detection_delta(section, self.parts(output), cells, seen)
        return detection_loss(x, result)

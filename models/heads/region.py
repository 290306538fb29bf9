"""[region]: boxes from anchors in a grid, one distribution over the classes (region_layer.c, YOLOv2 and YOLO9000)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models.export.graph import Graph
from models.heads import anchors
from models.heads.base import BoxSection, HeadLoss
from models.heads.class_rule import read_map
from models.heads.grid import GridHead, GridValues, Places, split_anchors
from models.heads.matching import read_truths
from models.heads.region_loss import region_delta, region_loss
from models.heads.tree import read_tree
from models.layers.base import Shape, Site
from utils.options import ignored, option

TREE_THRESHOLD = 0.5  # region_layer.c get_region_boxes: a class of a tree must be surer than this


@dataclass(frozen=True, kw_only=True)
class RegionSection(BoxSection):
    names: ClassVar[tuple[str, ...]] = ("region",)

    num: int = option(1, "anchors", least=1, most=10_000)
    coords: int = option(4, "coordinates of a box", least=4, most=4)
    anchors: tuple[float, ...] | None = option(None, "width, height of each anchor in cells of the grid")
    softmax: bool = option(False, "softmax over the classes")
    tree: str | None = option(None, "file with the tree of classes; softmax within each group of siblings")
    map: str | None = option(None, "file with a class number for each class of the labels, a line each; for training")
    bias_match: bool = option(False, "a truth belongs to the anchor of its shape, not to the box of its shape")
    thresh: float = option(0.5, "boxes that overlap a truth by more than this are not taught to be background")
    rescore: bool = option(False, "the overlap is the target of the objectness")
    classfix: int = option(
        0, "-1: the overlap is the target of every objectness; 1, 2: boxes above thresh learn the class"
    )
    focal_loss: bool = option(False, "focal loss of the classes")
    coord_scale: float = option(1.0, "factor on the gradient of the boxes")
    object_scale: float = option(1.0, "factor on the gradient of the objectness where a truth is")
    noobject_scale: float = option(1.0, "factor on the gradient of the objectness where none is")
    class_scale: float = option(1.0, "factor on the gradient of the classes")
    mask_scale: float = ignored(1.0, "the original reads it and does not use it")
    absolute: bool = ignored(False, "the original reads it and does not use it")
    log: bool = ignored(False, "the original reads it and does not use it")
    sqrt: bool = ignored(False, "the original reads it and does not use it")

    @property
    def filters(self) -> int:
        return self.num * (self.classes + 5)

    @property
    def anchor_sizes(self) -> tuple[tuple[float, float], ...]:
        """Width and height in cells of all anchors."""
        return anchors.pairs(self.anchors, self.num)

    def shape(self, site: Site) -> Shape:
        anchors.check_sizes(site, self.anchors, self.num)
        anchors.check_filters(site, self.filters, f"num={self.num} and classes={self.classes}")
        return site.input

    def reported_shape(self, site: Site) -> Shape:
        return site.input

    def build(self, site: Site) -> Region:
        return Region(self, site)


class Region(GridHead):
    """Entries of an anchor: x, y, w, h, objectness, classes; x and y stay raw. Input and output (n, num * (5 + classes), h, w)."""

    objectness_at = 4

    def __init__(self, section: RegionSection, site: Site) -> None:
        super().__init__()
        self.section = section
        self.cfg_path = site.raw.path
        self.anchors = section.num
        self.own_sizes = section.anchor_sizes
        self.tree = None if section.tree is None else read_tree(anchors.beside(section.tree, self.cfg_path))
        if self.tree is not None and len(self.tree) != section.classes:
            raise site.error(f"tree: has {len(self.tree)} classes, expected classes={section.classes}", "tree")

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """region_layer.c forward_region_layer: logistic on the objectness, softmax on the classes if asked for."""
        cells = split_anchors(x.float(), self.anchors)
        box, objectness, classes = cells.split((4, 1, self.section.classes), 2)
        if self.tree is not None:
            classes = self.tree.softmax(classes.movedim(2, -1)).movedim(-1, 2)
        elif self.section.softmax:
            classes = classes.softmax(2)
        return torch.cat((box, objectness.sigmoid(), classes), 2).reshape(x.shape)

    def recorded(self, output: Tensor, *inputs: Tensor) -> Tensor:
        """The original keeps the entries of a box together: cell by cell, anchor by anchor."""
        cells = split_anchors(output, self.anchors)
        return cells.permute(0, 3, 4, 1, 2).reshape(len(output), -1)

    def boxes(self, rows: Tensor, places: Places, grid_wh: tuple[int, int], size_wh: tuple[int, int]) -> Tensor:
        """region_layer.c get_region_box; anchors are in cells, the size of the input does not matter."""
        sizes = rows.new_tensor(self.own_sizes)[places.anchor]
        grid = rows.new_tensor(grid_wh)
        corner = torch.stack((places.col, places.row), 1)
        return torch.cat(((corner + rows[:, :2].sigmoid()) / grid, rows[:, 2:4].exp() * sizes / grid), 1)

    def objectness(self, rows: Tensor) -> Tensor:
        return self._believed(rows[:, self.objectness_at])

    def ceiling(self, cells: Tensor) -> Tensor:
        found = self._believed(super().ceiling(cells))
        if self.tree is not None or self.section.softmax:
            return found
        return found * cells[:, :, self.objectness_at + 1 :].float().amax(2)

    def _believed(self, objectness: Tensor) -> Tensor:
        """get_region_boxes: with classfix=-1 an objectness below one half counts as none."""
        return torch.where(objectness < 0.5, 0.0, objectness) if self.section.classfix == -1 else objectness

    def probabilities(self, rows: Tensor) -> Tensor:
        if self.tree is None:
            return super().probabilities(rows)
        # get_region_boxes: the last class surer than one half gets its own probability, without the objectness.
        found = self.tree.absolute(rows[:, 5:])
        order = torch.arange(found.shape[1], device=found.device)
        deepest = torch.where(found > TREE_THRESHOLD, order, -1).amax(1, keepdim=True)
        return torch.where(order == deepest, found, 0.0)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        if self.tree is not None:
            raise site.error("a softmax over a tree of classes is not offered in ONNX", "tree")
        cells = self.export_rows(graph, inputs[0], site)
        box, objectness, classes = (graph.slice(cells, 2, *ends) for ends in ((0, 4), (4, 5), (5, None)))
        if self.section.softmax:
            classes = graph.node("Softmax", classes, axis=2)
        return self.export_output(graph, site, (box, graph.node("Sigmoid", objectness), classes), inputs[0])

    def export_coordinates(self, graph: Graph, rows: str, grid: GridValues) -> str:
        xy = graph.node("Sigmoid", graph.slice(rows, 3, 0, 2))
        centre = graph.node("Add", xy, grid.corner)
        size = graph.node("Mul", graph.node("Exp", graph.slice(rows, 3, 2, 4)), graph.constant([[self.own_sizes]]))
        return graph.node("Div", graph.concat([centre, size], 3), graph.node("Concat", grid.count, grid.count, axis=0))

    def export_scores(self, graph: Graph, rows: str, site: Site) -> str:
        objectness = graph.slice(rows, 3, self.objectness_at, self.objectness_at + 1)
        if self.section.classfix == -1:
            objectness = graph.node("Where", graph.node("Less", objectness, 0.5), 0.0, objectness)
        return graph.node("Mul", objectness, graph.slice(rows, 3, self.objectness_at + 1))

    def loss(self, x: Tensor, truth: Tensor, size_wh: tuple[int, int], seen: int) -> HeadLoss:
        section = self.section
        with torch.no_grad():
            cells = split_anchors(self(x), self.anchors)
            truths = read_truths(truth.to(cells.device), section.max_truths, section.classes)
            class_map = read_map(section.map, self.cfg_path, section.classes)
            result = region_delta(section, cells, truths, self.boxes, self.tree, class_map, seen)
        return region_loss(x, result)

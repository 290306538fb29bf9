"""[region]: boxes from anchors in a grid, one distribution over the classes (region_layer.c, YOLOv2 and YOLO9000)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models.heads import anchors
from models.heads.anchor_loss import Boxes, finite, put
from models.heads.base import BoxSection, HeadLoss, loss_value
from models.heads.class_rule import FOCAL_ALPHA, FOCAL_GUARD, read_map
from models.heads.grid import GridHead, GridValues, Places, all_places, grid_of, rows_at, split_anchors
from models.heads.matching import Shared, Truths, best_overlap, cells_of, read_truths, share
from models.heads.tree import Tree, read_tree
from models.layers.base import Shape, Site
from models.onnx_graph import Graph
from utils.boxes import iou
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

    def forward(self, x: Tensor) -> Tensor:
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


OBJECTNESS = 4
SHAPING_IMAGES = 12_800  # so many images long every box is drawn to its anchor, with this weight:
SHAPING_SCALE = 0.01


@dataclass(frozen=True)
class RegionDelta:
    """delta: (n, num, 5 + classes, h, w). measures: overlap, objectness, probability of the class (k, 3) of the truths' boxes."""

    delta: Tensor
    measures: Tensor
    no_object: Tensor


def region_delta(
    section: RegionSection,
    cells: Tensor,
    truths: Truths,
    boxes: Boxes,
    tree: Tree | None,
    class_map: Sequence[int] | None,
    seen: int,
) -> RegionDelta:
    """Delta for outputs `cells` (n, num, 5 + classes, h, w); boxes: Region.boxes."""
    places = all_places(cells)
    rows = rows_at(cells, places)
    overlap, column = best_overlap(boxes(rows, places, grid_of(cells), (1, 1)), places.image, truths.table)
    state = _background(section, rows, overlap)
    if seen < SHAPING_IMAGES:
        centre = torch.full_like(rows[:, :2], 0.5)
        state[:, :4] = _box_delta(rows, centre, torch.zeros_like(centre), SHAPING_SCALE)
    if section.classfix > 0:
        chosen = (overlap > section.thresh).nonzero()[:, 0]
        ids = truths.class_ids[truths.row_of[places.image[chosen], column[chosen]]]
        scale = rows[chosen, OBJECTNESS] if section.classfix == 2 else torch.ones_like(rows[chosen, OBJECTNESS])
        state[chosen, 5:] = _classes(section, tree, rows[chosen], state[chosen], ids, section.class_scale * scale)
    delta = put(torch.zeros_like(cells), places, state)
    own, found = _choose(section, cells, truths, boxes)
    shared = share(own, (*cells.shape[:2], *cells.shape[3:]))
    ids = truths.class_ids
    if class_map is not None:
        ids = torch.tensor(class_map, device=ids.device)[ids]
    taught, measures = _teach(section, cells, delta, truths, shared, found, ids, tree)
    return RegionDelta(put(delta, shared.places, taught), measures, cells[:, :, OBJECTNESS].mean())


def _background(section: RegionSection, rows: Tensor, overlap: Tensor) -> Tensor:
    """Delta (k, entries) of "no object here", left out where a box overlaps a truth."""
    objectness = rows[:, OBJECTNESS]
    slope = section.noobject_scale * objectness * (1 - objectness)
    state = torch.zeros_like(rows)
    if section.classfix == -1:
        state[:, OBJECTNESS] = (overlap - objectness) * slope
    else:
        state[:, OBJECTNESS] = torch.where(overlap > section.thresh, 0.0, -objectness * slope)
    return state


def _choose(section: RegionSection, cells: Tensor, truths: Truths, boxes: Boxes) -> tuple[Places, Tensor]:
    """The box that learns each truth, and its cxcywh_rel (k, 4): in the truth's cell, of the most similar shape."""
    grid_wh, num = grid_of(cells), cells.shape[1]
    col, row = cells_of(truths.cxcywh_rel[:, :2], grid_wh)
    count = len(col)
    anchor = torch.arange(num, device=col.device).repeat(count)
    image, rows, cols = (each.repeat_interleave(num) for each in (truths.image, row, col))
    all_of_cell = Places(image, anchor, rows, cols)
    found = boxes(rows_at(cells, all_of_cell), all_of_cell, grid_wh, (1, 1)).view(count, num, 4)
    wh = found[..., 2:]
    if section.bias_match:
        wh = (wh.new_tensor(section.anchor_sizes) / wh.new_tensor(grid_wh)).expand_as(wh)
    shape = torch.cat((torch.zeros_like(wh), wh), 2)
    wanted = torch.cat((torch.zeros_like(truths.cxcywh_rel[:, :2]), truths.cxcywh_rel[:, 2:]), 1)
    best = iou(shape, wanted[:, None]).nan_to_num(0.0).argmax(1) if count else col
    return Places(truths.image, best, row, col), found[torch.arange(count, device=col.device), best]


def _teach(
    section: RegionSection,
    cells: Tensor,
    delta: Tensor,
    truths: Truths,
    shared: Shared,
    found: Tensor,
    ids: Tensor,
    tree: Tree | None,
) -> tuple[Tensor, Tensor]:
    """Delta (s, entries) of the boxes that learn truths, the last truth of a box counts; and the measures (k, 3)."""
    rows = rows_at(cells, shared.places)[shared.box_of]
    state = rows_at(delta, shared.places)
    grid = rows.new_tensor(grid_of(cells))
    places = Places(*(each[shared.box_of] for each in shared.places))
    centre = truths.cxcywh_rel[:, :2] * grid - torch.stack((places.col, places.row), 1)
    sizes = rows.new_tensor(section.anchor_sizes)[places.anchor]
    box = _box_delta(rows, centre, (truths.cxcywh_rel[:, 2:] * grid / sizes).log(), section.coord_scale)
    overlap, objectness = iou(found, truths.cxcywh_rel), rows[:, OBJECTNESS]
    goal = overlap if section.rescore else torch.ones_like(overlap)
    wanted = section.object_scale * (goal - objectness) * objectness * (1 - objectness)
    for turn in shared.turns():
        at = shared.box_of[turn]
        scale = torch.full_like(wanted[turn], section.class_scale)
        classes = _classes(section, tree, rows[turn], state[at], ids[turn], scale)
        state[at] = torch.cat((box[turn], wanted[turn, None], classes), 1)
    probabilities = rows[:, 5:] if tree is None else tree.absolute(rows[:, 5:])
    return state, torch.stack((overlap, objectness, probabilities.gather(1, ids[:, None])[:, 0]), 1)


def _box_delta(rows: Tensor, centre: Tensor, log_size: Tensor, scale: float) -> Tensor:
    """delta_region_box; a truth of zero size teaches no size."""
    logistic = rows[:, :2].sigmoid()
    by_centre = (centre - logistic) * logistic * (1 - logistic)
    return scale * torch.cat((by_centre, finite(log_size - rows[:, 2:4], torch.inf)), 1)


def _classes(
    section: RegionSection, tree: Tree | None, rows: Tensor, state: Tensor, ids: Tensor, scale: Tensor
) -> Tensor:
    """delta_region_class: delta (k, classes) after learning a class; with a tree only the groups on the path change."""
    found, classes, scale = rows[:, 5:], ids[:, None], scale[:, None]
    if tree is not None:
        on_path, of_groups = tree.path(ids)
        return torch.where(of_groups, scale * (on_path.float() - found), state[:, 5:])
    target = torch.zeros_like(found).scatter(1, classes, 1.0)
    delta = scale * (target - found)
    if not section.focal_loss:
        return delta
    sure = found.gather(1, classes) + FOCAL_GUARD
    return delta * FOCAL_ALPHA * -(1 - sure) * (2 * sure * sure.log() + sure - 1)


def region_loss(x: Tensor, result: RegionDelta) -> HeadLoss:
    """The loss with the original's cost, the squares of all deltas."""
    delta, count = result.delta, len(result.measures)
    square = delta.square()
    sums = (square[:, :, :OBJECTNESS].sum(), square[:, :, OBJECTNESS].sum(), square[:, :, OBJECTNESS + 1 :].sum())
    recall = (result.measures[:, :1] > 0.5).float()
    means = torch.cat((result.measures, recall), 1).sum(0) / max(count, 1)
    numbers = torch.cat((torch.stack((*sums, result.no_object)), means)).tolist()
    terms = dict(zip(("box", "objectness", "class"), numbers[:3], strict=True))
    names = ("no_object", "iou", "objectness", "class", "recall50")
    cost = sum(numbers[:3])
    averages = dict(zip(names, numbers[3:], strict=True))
    return HeadLoss(loss_value(x, delta, delta.new_tensor(cost)), cost, terms, averages, count)

"""[region]: boxes from anchors in a grid, one distribution over the classes (region_layer.c, YOLOv2 and YOLO9000)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models.heads.anchor_head import finite, focal_factor
from models.heads.anchors import anchors_text, check_filters, check_sizes, pairs
from models.heads.base import BoxSection, HeadLoss, locate, make_loss, to_floats
from models.heads.grid import (
    GridHead,
    GridValues,
    Locations,
    all_locations,
    entries_at,
    grid_of,
    split_anchors,
    write_entries,
)
from models.heads.matching import (
    GroundTruth,
    TargetGroups,
    best_match,
    cells_of,
    centred,
    group_by_box,
    map_classes,
    read_ground_truth,
)
from models.heads.tree import read_tree
from models.layers.base import Shape, Site
from models.onnx_graph import Graph
from utils.boxes import iou
from utils.options import ignored, option

OBJECTNESS = 4
TREE_THRESHOLD = 0.5  # region_layer.c get_region_boxes: lowest probability of a class in a tree
ANCHOR_IMAGES = 12_800  # for this many images, every box is pulled towards its anchor, with this weight:
ANCHOR_SCALE = 0.01


@dataclass(frozen=True, kw_only=True)
class RegionSection(BoxSection):
    """Boxes from anchors in a grid, with one distribution over the classes (region_layer.c, YOLOv2 and YOLO9000)."""

    names: ClassVar[tuple[str, ...]] = ("region",)

    num: int = option(1, "number of anchors", least=1, most=10_000)
    coords: int = option(4, "coordinates of a box", least=4, most=4)
    anchors: tuple[float, ...] | None = option(None, "width, height of each anchor in cells of the grid")
    softmax: bool = option(False, "softmax over the classes")
    tree: str | None = option(None, "file with a tree of classes, for a softmax within each sibling group")
    map: str | None = option(None, "training: file that maps the classes of the labels, one class number per line")
    bias_match: bool = option(False, "assign objects by the shape of the anchor instead of that of the box")
    thresh: float = option(0.5, "a box with a higher IoU than this is not trained as background")
    rescore: bool = option(False, "use the IoU as the objectness target")
    classfix: int = option(0, "-1: the IoU is the target of every objectness; 1, 2: boxes above thresh learn the class")
    focal_loss: bool = option(False, "focal loss of the classes")
    coord_scale: float = option(1.0, "factor on the box gradient")
    object_scale: float = option(1.0, "factor on the objectness gradient of boxes with an object")
    noobject_scale: float = option(1.0, "factor on the objectness gradient of background boxes")
    class_scale: float = option(1.0, "factor on the class gradient")
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
        return pairs(self.anchors, self.num)

    def shape(self, site: Site) -> Shape:
        check_sizes(site, self.anchors, self.num)
        check_filters(site, self.filters, f"num={self.num} and classes={self.classes}")
        return site.input

    def reported_shape(self, site: Site) -> Shape:
        return site.input

    def detail(self, site: Site) -> str:
        return anchors_text(self.anchor_sizes)

    def build(self, site: Site) -> Region:
        return Region(self, site)


class Region(GridHead):
    """Input and output (n, num * (5 + classes), h, w).

    The entries of an anchor are x, y, w, h, objectness, classes; in the output, x and y are still raw.
    """

    objectness_at = OBJECTNESS

    def __init__(self, section: RegionSection, site: Site) -> None:
        super().__init__()
        self.section = section
        self.cfg_path = site.raw.path
        self.anchors, self.own_sizes = section.num, section.anchor_sizes
        self.tree = None if section.tree is None else read_tree(locate(section.tree, self.cfg_path))
        if self.tree is not None and len(self.tree) != section.classes:
            raise site.error(f"tree: has {len(self.tree)} classes, expected classes={section.classes}", "tree")

    def forward(self, x: Tensor) -> Tensor:
        """Apply a logistic to the objectness and optionally a softmax to the classes (region_layer.c forward_region_layer)."""
        cells = split_anchors(x.float(), self.anchors)
        box, objectness, classes = cells.split((4, 1, self.section.classes), 2)
        if self.tree is not None:
            classes = self.tree.softmax(classes.movedim(2, -1)).movedim(-1, 2)
        elif self.section.softmax:
            classes = classes.softmax(2)
        return torch.cat((box, objectness.sigmoid(), classes), 2).reshape(x.shape)

    def recorded(self, output: Tensor, *inputs: Tensor) -> Tensor:
        """The output in the original's layout, which keeps the entries of a box together: cell by cell, anchor by anchor."""
        cells = split_anchors(output, self.anchors)
        return cells.permute(0, 3, 4, 1, 2).reshape(len(output), -1)

    def boxes(self, entries: Tensor, at: Locations, grid_wh: tuple[int, int], size_wh: tuple[int, int]) -> Tensor:
        """region_layer.c get_region_box; anchors are in cells, so the input size does not matter."""
        sizes = entries.new_tensor(self.own_sizes)[at.anchor]
        grid = entries.new_tensor(grid_wh)
        return torch.cat(((at.corner + entries[:, :2].sigmoid()) / grid, entries[:, 2:4].exp() * sizes / grid), 1)

    def objectness(self, entries: Tensor) -> Tensor:
        return self._thresholded(entries[:, OBJECTNESS])

    def largest_score(self, cells: Tensor) -> Tensor:
        objectness = self._thresholded(super().largest_score(cells))
        if self.tree is not None or self.section.softmax:
            return objectness
        return objectness * cells[:, :, OBJECTNESS + 1 :].float().amax(2)

    def _thresholded(self, objectness: Tensor) -> Tensor:
        """With classfix=-1, an objectness below 0.5 counts as zero (get_region_boxes)."""
        return torch.where(objectness < 0.5, 0.0, objectness) if self.section.classfix == -1 else objectness

    def scores(self, entries: Tensor) -> Tensor:
        if self.tree is None:
            return super().scores(entries)
        # get_region_boxes: only the last class above 0.5 gets a score: its probability, without the objectness.
        probabilities = self.tree.absolute(entries[:, 5:])
        order = torch.arange(probabilities.shape[1], device=probabilities.device)
        deepest = torch.where(probabilities > TREE_THRESHOLD, order, -1).amax(1, keepdim=True)
        return torch.where(order == deepest, probabilities, 0.0)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        if self.tree is not None:
            raise site.error("a softmax over a tree of classes cannot be exported to ONNX", "tree")
        cells = self.export_entries(graph, inputs[0], site)
        box, objectness, classes = (graph.slice(cells, 2, *ends) for ends in ((0, 4), (4, 5), (5, None)))
        if self.section.softmax:
            classes = graph.node("Softmax", classes, axis=2)
        return self.export_output(graph, site, (box, graph.node("Sigmoid", objectness), classes), inputs[0])

    def export_coordinates(self, graph: Graph, entries: str, grid: GridValues) -> str:
        xy = graph.node("Sigmoid", graph.slice(entries, 3, 0, 2))
        centre = graph.node("Add", xy, grid.corner)
        size = graph.node("Mul", graph.node("Exp", graph.slice(entries, 3, 2, 4)), graph.constant([[self.own_sizes]]))
        return graph.node("Div", graph.concat([centre, size], 3), graph.node("Concat", grid.count, grid.count, axis=0))

    def export_scores(self, graph: Graph, entries: str, site: Site) -> str:
        objectness = graph.slice(entries, 3, OBJECTNESS, OBJECTNESS + 1)
        if self.section.classfix == -1:
            objectness = graph.node("Where", graph.node("Less", objectness, 0.5), 0.0, objectness)
        return graph.node("Mul", objectness, graph.slice(entries, 3, OBJECTNESS + 1))

    def loss(self, x: Tensor, labels: Tensor, size_wh: tuple[int, int], seen: int) -> HeadLoss:
        """See Head.loss; the original's cost is the sum of squares of all deltas."""
        with torch.no_grad():
            cells = split_anchors(self(x), self.anchors)
            ground_truth = read_ground_truth(labels.to(cells.device), self.section.max_truths, self.section.classes)
            delta, measures = self._delta(cells, ground_truth, seen)
        terms, averages = to_floats(self.squares(delta), measures, cells[:, :, OBJECTNESS].mean())
        return make_loss(x, delta, terms, averages, len(measures["iou"]))

    def _delta(self, cells: Tensor, ground_truth: GroundTruth, seen: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Delta for outputs `cells` (n, num, 5 + classes, h, w), and measures (k,) of the objects' boxes by name."""
        section, locations = self.section, all_locations(cells)
        entries = entries_at(cells, locations)
        boxes = self.boxes(entries, locations, grid_of(cells), (1, 1))
        overlap, column = best_match(boxes, locations.image, ground_truth.padded)
        state = self._background_delta(entries, overlap)
        if seen < ANCHOR_IMAGES:
            centre = torch.full_like(entries[:, :2], 0.5)
            state[:, :4] = _box_delta(entries, centre, torch.zeros_like(centre), ANCHOR_SCALE)
        if section.classfix > 0:
            chosen = (overlap > section.thresh).nonzero()[:, 0]
            ids = ground_truth.class_ids[ground_truth.index_of[locations.image[chosen], column[chosen]]]
            objectness = entries[chosen, OBJECTNESS]
            scale = section.class_scale * (objectness if section.classfix == 2 else torch.ones_like(objectness))
            state[chosen, 5:] = self._class_delta(entries[chosen], state[chosen], ids, scale)
        delta = write_entries(torch.zeros_like(cells), locations, state)
        assigned, predicted = self._assign(cells, ground_truth)
        groups = group_by_box(assigned, (*cells.shape[:2], *cells.shape[3:]))
        ids = map_classes(ground_truth.class_ids, section.map, self.cfg_path, section.classes)
        state, measures = self._apply_targets(cells, delta, ground_truth, groups, predicted, ids)
        return write_entries(delta, groups.at, state), measures

    def _background_delta(self, entries: Tensor, overlap: Tensor) -> Tensor:
        """Delta (k, entries) of boxes as background; zero for boxes that overlap an object."""
        section, objectness = self.section, entries[:, OBJECTNESS]
        slope = section.noobject_scale * objectness * (1 - objectness)
        state = torch.zeros_like(entries)
        if section.classfix == -1:
            state[:, OBJECTNESS] = (overlap - objectness) * slope
        else:
            state[:, OBJECTNESS] = torch.where(overlap > section.thresh, 0.0, -objectness * slope)
        return state

    def _assign(self, cells: Tensor, ground_truth: GroundTruth) -> tuple[Locations, Tensor]:
        """Location and cxcywh_rel (k, 4) of the box for each object: the one in its cell with the most similar shape."""
        grid_wh, num = grid_of(cells), cells.shape[1]
        col, row = cells_of(ground_truth.cxcywh_rel[:, :2], grid_wh)
        count = len(col)
        anchor = torch.arange(num, device=col.device).repeat(count)
        image, rows, cols = (each.repeat_interleave(num) for each in (ground_truth.image, row, col))
        candidates = Locations(image, anchor, rows, cols)
        predicted = self.boxes(entries_at(cells, candidates), candidates, grid_wh, (1, 1)).view(count, num, 4)
        wh = predicted[..., 2:]
        if self.section.bias_match:
            wh = (wh.new_tensor(self.own_sizes) / wh.new_tensor(grid_wh)).expand_as(wh)
        wanted = centred(ground_truth.cxcywh_rel[:, 2:])
        best = iou(centred(wh), wanted[:, None]).nan_to_num(0.0).argmax(1) if count else col
        order = torch.arange(count, device=col.device)
        return Locations(ground_truth.image, best, row, col), predicted[order, best]

    def _apply_targets(
        self,
        cells: Tensor,
        delta: Tensor,
        ground_truth: GroundTruth,
        groups: TargetGroups,
        predicted: Tensor,
        ids: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Delta (s, entries) of boxes with objects (the last object of a box counts), and measures (k,) by name."""
        section = self.section
        entries = entries_at(cells, groups.at)[groups.box_of]
        state = entries_at(delta, groups.at)
        grid = entries.new_tensor(grid_of(cells))
        at = Locations(*(each[groups.box_of] for each in groups.at))
        centre = ground_truth.cxcywh_rel[:, :2] * grid - at.corner
        log_size = (ground_truth.cxcywh_rel[:, 2:] * grid / entries.new_tensor(self.own_sizes)[at.anchor]).log()
        box = _box_delta(entries, centre, log_size, section.coord_scale)
        overlap, objectness = iou(predicted, ground_truth.cxcywh_rel), entries[:, OBJECTNESS]
        goal = overlap if section.rescore else torch.ones_like(overlap)
        change = section.object_scale * (goal - objectness) * objectness * (1 - objectness)
        for chosen in groups.rounds():
            own = groups.box_of[chosen]
            scale = torch.full_like(change[chosen], section.class_scale)
            classes = self._class_delta(entries[chosen], state[own], ids[chosen], scale)
            state[own] = torch.cat((box[chosen], change[chosen, None], classes), 1)
        probabilities = entries[:, 5:] if self.tree is None else self.tree.absolute(entries[:, 5:])
        measures = {
            "iou": overlap,
            "objectness": objectness,
            "class": probabilities.gather(1, ids[:, None])[:, 0],
            "recall50": (overlap > 0.5).float(),
        }
        return state, measures

    def _class_delta(self, entries: Tensor, state: Tensor, ids: Tensor, scale: Tensor) -> Tensor:
        """Class delta (k, classes); with a tree, only sibling groups on the target's path change (delta_region_class)."""
        found, classes, scale = entries[:, 5:], ids[:, None], scale[:, None]
        if self.tree is not None:
            on_path, of_groups = self.tree.path(ids)
            return torch.where(of_groups, scale * (on_path.float() - found), state[:, 5:])
        delta = scale * (torch.zeros_like(found).scatter(1, classes, 1.0) - found)
        return delta * focal_factor(found.gather(1, classes)) if self.section.focal_loss else delta


def _box_delta(entries: Tensor, centre: Tensor, log_size: Tensor, scale: float) -> Tensor:
    """Box delta (k, 4); a width or height of 0 does not train the size (delta_region_box)."""
    logistic = entries[:, :2].sigmoid()
    of_centre = (centre - logistic) * logistic * (1 - logistic)
    return scale * torch.cat((of_centre, finite(log_size - entries[:, 2:4], torch.inf)), 1)

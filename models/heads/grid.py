"""What the decoders of grid heads share: every cell of the grid predicts a box for each of several anchors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.heads.base import Candidates, DenseBoxes, Head
from models.layers.base import Site
from models.onnx_graph import INPUT, Graph


class Locations(NamedTuple):
    """Locations of k boxes, int64 (k,) each; `anchor` is the position among the head's own anchors (in `mask`)."""

    image: Tensor
    anchor: Tensor
    row: Tensor
    col: Tensor

    @property
    def corner(self) -> Tensor:
        """Column and row (k, 2), which is the top left corner of each cell in units of cells."""
        return torch.stack((self.col, self.row), 1)


class GridHead(Head):
    """A head with output (n, anchors * entries, h, w); the entries of an anchor are box, objectness, classes.

    `decode` first compares one value per anchor and cell with the threshold and gathers the entries only where it is
    exceeded, which keeps it fast even at low thresholds.
    """

    anchors: int  # number of the head's own anchors
    objectness_at: int  # entry of the objectness; the classes follow

    def boxes(self, entries: Tensor, at: Locations, grid_wh: tuple[int, int], size_wh: tuple[int, int]) -> Tensor:
        """Boxes cxcywh_rel (k, 4) from entries (k, entries) of this head's output."""
        raise AssertionError(f"{type(self).__name__} has no boxes")

    def objectness(self, entries: Tensor) -> Tensor:
        """Objectness (k,) from entries (k, entries)."""
        return entries[:, self.objectness_at]

    def scores(self, entries: Tensor) -> Tensor:
        """Objectness times class probability, (k, classes), from entries (k, entries)."""
        return self.objectness(entries)[:, None] * entries[:, self.objectness_at + 1 :]

    def largest_score(self, cells: Tensor) -> Tensor:
        """Upper bound (n, anchors, h, w) of the scores of each box, from outputs (n, anchors, entries, h, w)."""
        return cells[:, :, self.objectness_at].float()

    def squares(self, delta: Tensor) -> dict[str, Tensor]:
        """Sum of squares of each part of a delta (n, anchors, entries, h, w), by name."""
        square, at = delta.square(), self.objectness_at
        parts = {"box": square[:, :, :at], "objectness": square[:, :, at], "class": square[:, :, at + 1 :]}
        return {name: part.sum() for name, part in parts.items()}

    def decode(self, output: Tensor, threshold: float, size_wh: tuple[int, int]) -> Candidates:
        cells = split_anchors(output, self.anchors)
        at = locations_where(self.largest_score(cells) > threshold)
        entries = entries_at(cells, at).float()
        scores = self.scores(entries)
        scores = torch.where(scores > threshold, scores, 0.0)
        return Candidates(at.image, self.boxes(entries, at, grid_of(cells), size_wh), scores, self.objectness(entries))

    def dense(self, output: Tensor, size_wh: tuple[int, int]) -> DenseBoxes:
        cells = split_anchors(output, self.anchors)
        n, anchors, count, h, w = cells.shape
        entries = cells.permute(0, 3, 4, 1, 2).reshape(-1, count).float()
        boxes = self.boxes(entries, all_locations(cells), grid_of(cells), size_wh).view(n, h * w * anchors, 4)
        scores, objectness = self.scores(entries), self.objectness(entries)
        return DenseBoxes(boxes, scores.view(*boxes.shape[:2], -1), objectness.view(boxes.shape[:2]))

    def export_entries(self, graph: Graph, x: str, site: Site) -> str:
        """Reshape (n, anchors * entries, h, w) to (n, anchors, entries, h * w) in an ONNX graph."""
        return graph.reshape(x, 0, self.anchors, site.input.channels // self.anchors, -1)

    def export_output(self, graph: Graph, site: Site, parts: Sequence[str], x: str) -> str:
        """Join parts of (n, anchors, entries, h * w) and reshape them like the head's input x, in an ONNX graph."""
        cells = graph.concat(parts, 2)
        if graph.dynamic_size:
            return graph.node("Reshape", cells, graph.node("Shape", x))
        return graph.reshape(cells, 0, site.input.channels, site.input.height, site.input.width)

    def export_boxes(self, graph: Graph, site: Site, output: str) -> tuple[str, str]:
        entries = graph.node("Transpose", self.export_entries(graph, output, site), perm=[0, 3, 1, 2])
        boxes = self.export_coordinates(graph, entries, export_grid(graph, site, output))
        scores = self.export_scores(graph, entries, site)
        classes = site.input.channels // self.anchors - self.objectness_at - 1
        return graph.reshape(boxes, 0, -1, 4), graph.reshape(scores, 0, -1, classes)

    def export_coordinates(self, graph: Graph, entries: str, grid: GridValues) -> str:
        """`boxes` in an ONNX graph: (n, cells, anchors, 4) from entries (n, cells, anchors, entries)."""
        raise AssertionError(f"{type(self).__name__} has no boxes")

    def export_scores(self, graph: Graph, entries: str, site: Site) -> str:
        """`scores` in an ONNX graph: (n, cells, anchors, classes) from entries (n, cells, anchors, entries)."""
        at = self.objectness_at
        return graph.node("Mul", graph.slice(entries, 3, at, at + 1), graph.slice(entries, 3, at + 1))


@dataclass(frozen=True)
class GridValues:
    """A grid in an ONNX graph.

    corners: (1, cells, 1, 2), in cells.
    size: (2,), in cells.
    size_wh: (2,), size of the network's input in pixels.
    """

    corner: str
    count: str
    size_wh: str


def export_grid(graph: Graph, site: Site, output: str) -> GridValues:
    """Add a head's grid to an ONNX graph, as constants unless the input size is dynamic."""
    if graph.dynamic_size:
        return _export_dynamic_grid(graph, output)
    w, h = site.input.width, site.input.height
    rows, columns = np.divmod(np.arange(h * w), w)
    corner = graph.constant(np.stack((columns, rows), 1)[None, :, None])
    return GridValues(corner, graph.constant([w, h]), graph.constant(graph.size_wh))


def _export_dynamic_grid(graph: Graph, output: str) -> GridValues:
    zero, one = graph.integers(0), graph.integers(1)
    height, width = graph.sizes(output, 2, 3), graph.sizes(output, 3, 4)
    count = graph.node("Squeeze", graph.node("Mul", height, width), graph.integers([0]))
    cells = graph.node("Range", zero, count, one)
    row = graph.node("Div", cells, width)
    column = graph.node("Sub", cells, graph.node("Mul", row, width))
    parts = [graph.reshape(each, 1, -1, 1, 1) for each in (column, row)]
    return GridValues(
        graph.to_float(graph.concat(parts, 3)),
        graph.to_float(graph.concat([width, height], 0)),
        graph.to_float(graph.concat([graph.sizes(INPUT, 3, 4), graph.sizes(INPUT, 2, 3)], 0)),
    )


def split_anchors(output: Tensor, anchors: int) -> Tensor:
    """Reshape (n, anchors * entries, h, w) to (n, anchors, entries, h, w)."""
    n, channels, h, w = output.shape
    return output.reshape(n, anchors, channels // anchors, h, w)


def grid_of(cells: Tensor) -> tuple[int, int]:
    """Width and height of the grid."""
    return cells.shape[-1], cells.shape[-2]


def locations_where(chosen: Tensor) -> Locations:
    """Locations where (n, anchors, h, w) is true, ordered by image, row, column, anchor like the original's."""
    image, row, col, anchor = chosen.permute(0, 2, 3, 1).nonzero().unbind(1)
    return Locations(image, anchor, row, col)


def all_locations(cells: Tensor) -> Locations:
    """All locations of (n, anchors, entries, h, w), in the order of `locations_where`."""
    n, anchors, _, h, w = cells.shape
    axes = [torch.arange(size, device=cells.device) for size in (n, h, w, anchors)]
    image, row, col, anchor = (axis.reshape(-1) for axis in torch.meshgrid(*axes, indexing="ij"))
    return Locations(image, anchor, row, col)


def entries_at(cells: Tensor, at: Locations) -> Tensor:
    """Gather the entries (k, entries) at k locations of (n, anchors, entries, h, w)."""
    return cells[at.image, at.anchor, :, at.row, at.col]


def write_entries(cells: Tensor, at: Locations, entries: Tensor) -> Tensor:
    """Replace in place the entries (k, entries) at distinct locations of `cells` (n, anchors, entries, h, w)."""
    cells[at.image, at.anchor, :, at.row, at.col] = entries
    return cells

"""Heads whose boxes sit in the cells of a grid, several anchors in each: what their decoders have in common."""

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


class Places(NamedTuple):
    """Where boxes stand: int64 (n,) each. anchor: position among the head's own anchors (in `mask`)."""

    image: Tensor
    anchor: Tensor
    row: Tensor
    col: Tensor


class GridHead(Head):
    """A head with output (n, anchors * entries, h, w); the entries of an anchor are box, objectness, classes.

    `decode` looks at one value per anchor and cell first and gathers the entries of what passes only, so that it stays
    fast at low thresholds.
    """

    anchors: int  # number of the head's own anchors
    objectness_at: int  # entry of the objectness; the classes follow

    def boxes(self, rows: Tensor, places: Places, grid_wh: tuple[int, int], size_wh: tuple[int, int]) -> Tensor:
        """cxcywh_rel (k, 4) of entries (k, entries) of this head's output."""
        raise AssertionError(f"{type(self).__name__} has no boxes")

    def objectness(self, rows: Tensor) -> Tensor:
        """(k,) of entries (k, entries)."""
        return rows[:, self.objectness_at]

    def probabilities(self, rows: Tensor) -> Tensor:
        """Scores (k, classes) of entries (k, entries), objectness multiplied in, before any threshold."""
        return self.objectness(rows)[:, None] * rows[:, self.objectness_at + 1 :]

    def ceiling(self, cells: Tensor) -> Tensor:
        """(n, anchors, h, w) of (n, anchors, entries, h, w): a cell is looked at if this exceeds the threshold."""
        return cells[:, :, self.objectness_at].float()

    def decode(self, output: Tensor, threshold: float, size_wh: tuple[int, int]) -> Candidates:
        cells = split_anchors(output, self.anchors)
        places = places_where(self.ceiling(cells) > threshold)
        rows = rows_at(cells, places).float()
        scores = self.probabilities(rows)
        scores = torch.where(scores > threshold, scores, 0.0)
        boxes = self.boxes(rows, places, grid_of(cells), size_wh)
        return Candidates(places.image, boxes, scores, self.objectness(rows))

    def export_rows(self, graph: Graph, x: str, site: Site) -> str:
        """(n, anchors * entries, h, w) to (n, anchors, entries, h * w) in an ONNX graph."""
        return graph.reshape(x, 0, self.anchors, site.input.channels // self.anchors, -1)

    def export_output(self, graph: Graph, site: Site, parts: Sequence[str], x: str) -> str:
        """Parts of (n, anchors, entries, h * w) put together in the shape of the head's input x, in an ONNX graph."""
        cells = graph.concat(parts, 2)
        if graph.dynamic_size:
            return graph.node("Reshape", cells, graph.node("Shape", x))
        return graph.reshape(cells, 0, site.input.channels, site.input.height, site.input.width)

    def export_boxes(self, graph: Graph, site: Site, output: str) -> tuple[str, str]:
        rows = graph.node("Transpose", self.export_rows(graph, output, site), perm=[0, 3, 1, 2])
        boxes = self.export_coordinates(graph, rows, export_grid(graph, site, output))
        scores = self.export_scores(graph, rows, site)
        classes = site.input.channels // self.anchors - self.objectness_at - 1
        return graph.reshape(boxes, 0, -1, 4), graph.reshape(scores, 0, -1, classes)

    def export_coordinates(self, graph: Graph, rows: str, grid: GridValues) -> str:
        """`boxes` in an ONNX graph: (n, cells, anchors, 4) of rows (n, cells, anchors, entries)."""
        raise AssertionError(f"{type(self).__name__} has no boxes")

    def export_scores(self, graph: Graph, rows: str, site: Site) -> str:
        """`probabilities` in an ONNX graph: (n, cells, anchors, classes) of rows (n, cells, anchors, entries)."""
        at = self.objectness_at
        return graph.node("Mul", graph.slice(rows, 3, at, at + 1), graph.slice(rows, 3, at + 1))

    def dense(self, output: Tensor, size_wh: tuple[int, int]) -> DenseBoxes:
        cells = split_anchors(output, self.anchors)
        n, anchors, entries, h, w = cells.shape
        rows = cells.permute(0, 3, 4, 1, 2).reshape(-1, entries).float()
        boxes = self.boxes(rows, all_places(cells), grid_of(cells), size_wh)
        scores, objectness = self.probabilities(rows), self.objectness(rows)
        count = h * w * anchors
        return DenseBoxes(boxes.view(n, count, 4), scores.view(n, count, -1), objectness.view(n, count))


@dataclass(frozen=True)
class GridValues:
    """Of a grid in an ONNX graph: corner (1, cells, 1, 2) and count (2,) of its cells, size_wh (2,) of the network's input."""

    corner: str
    count: str
    size_wh: str


def export_grid(graph: Graph, site: Site, output: str) -> GridValues:
    """The grid of a head; constants unless the size is dynamic."""
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
    """(n, anchors * entries, h, w) to (n, anchors, entries, h, w)."""
    n, channels, h, w = output.shape
    return output.reshape(n, anchors, channels // anchors, h, w)


def grid_of(cells: Tensor) -> tuple[int, int]:
    """Width and height of the grid."""
    return cells.shape[-1], cells.shape[-2]


def places_where(chosen: Tensor) -> Places:
    """The true places of (n, anchors, h, w) in the original's order: image, row, column, anchor."""
    image, row, col, anchor = chosen.permute(0, 2, 3, 1).nonzero().unbind(1)
    return Places(image, anchor, row, col)


def all_places(cells: Tensor) -> Places:
    """All places of (n, anchors, entries, h, w), in the order of `places_where`."""
    n, anchors, _, h, w = cells.shape
    axes = [torch.arange(size, device=cells.device) for size in (n, h, w, anchors)]
    image, row, col, anchor = (axis.reshape(-1) for axis in torch.meshgrid(*axes, indexing="ij"))
    return Places(image, anchor, row, col)


def rows_at(cells: Tensor, places: Places) -> Tensor:
    """Entries (k, entries) at places of (n, anchors, entries, h, w)."""
    return cells[places.image, places.anchor, :, places.row, places.col]

"""Heads whose boxes sit in the cells of a grid, several anchors in each: what their decoders have in common."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from models.heads.base import Candidates, DenseBoxes, Head


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

    def dense(self, output: Tensor, size_wh: tuple[int, int]) -> DenseBoxes:
        cells = split_anchors(output, self.anchors)
        n, anchors, entries, h, w = cells.shape
        rows = cells.permute(0, 3, 4, 1, 2).reshape(-1, entries).float()
        boxes = self.boxes(rows, all_places(cells), grid_of(cells), size_wh)
        scores, objectness = self.probabilities(rows), self.objectness(rows)
        count = h * w * anchors
        return DenseBoxes(boxes.view(n, count, 4), scores.view(n, count, -1), objectness.view(n, count))


def split_anchors(output: Tensor, anchors: int) -> Tensor:
    """(n, anchors * entries, h, w) to (n, anchors, entries, h, w)."""
    n, channels, h, w = output.shape
    return output.reshape(n, anchors, channels // anchors, h, w)


def grid_of(cells: Tensor) -> tuple[int, int]:
    """Width and height of the grid."""
    return cells.shape[-1], cells.shape[-2]


def places_where(chosen: Tensor) -> Places:
    """The true places of (n, anchors, h, w) in the original's order: picture, row, column, anchor."""
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

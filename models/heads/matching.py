"""Truths of a batch, and which boxes of a grid are to learn them: shared by the losses of the heads with anchors."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from models.heads.grid import Places
from utils import boxes as measures
from utils.boxes import iou, pairwise

logger = logging.getLogger(__name__)

_CACHED = 2**16  # overlaps computed at a time: what fits into a processor's cache,
_BOUNDED = 2**24  # and what fits into the memory of any GPU


class Truths(NamedTuple):
    """The truths of a batch that count.

    image: int64 (k,). cxcywh_rel: float32 (k, 4). class_ids: int64 (k,). table: float32 (images, most, 4), the same boxes by
    image, zeros where there is none. row_of: int64 (images, most), where a table entry stands among the k.
    """

    image: Tensor
    cxcywh_rel: Tensor
    class_ids: Tensor
    table: Tensor
    row_of: Tensor


def read_truths(truth: Tensor, most: int, classes: int) -> Truths:
    """Truths from float32 (images, any, 5), see Head.loss; at most `most` of an image.

    The rows of an image end at the first with cx = 0. Class ids outside 0 to classes - 1 are left out with a warning, as
    yolo_layer.c process_batch does.
    """
    truth = truth[:, :most].float()
    present = (truth[..., 0] != 0).cumprod(1).bool()
    ids = truth[..., 4].long()
    known = present & (ids >= 0) & (ids < classes)
    image, column = known.nonzero().unbind(1)
    longest, skipped = 0, 0
    if truth.numel():
        longest, skipped = torch.stack((present.sum(1).max(), (present & ~known).sum())).tolist()
    if skipped:
        logger.warning("%d truths have a class that is not in 0 to %d: left out of the loss", skipped, classes - 1)
    table = torch.where(known[..., None], truth[..., :4], 0.0)[:, :longest]
    row_of = (known.flatten().cumsum(0) - 1).view(known.shape)[:, :longest]
    return Truths(image, truth[image, column, :4], ids[image, column], table, row_of)


def best_overlap(cxcywh_rel: Tensor, image: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """For boxes (k, 4) of images (k,): the greatest IoU with a truth of the image, and the truth's column in `table`."""
    if not table.shape[1] or not len(cxcywh_rel):
        return cxcywh_rel.new_zeros(len(cxcywh_rel)), image.new_zeros(len(image))
    rows = max(1, (_CACHED if table.is_cpu else _BOUNDED) // table.shape[1])
    parts = [
        iou(some[:, None], table.index_select(0, of)).max(1)
        for some, of in zip(cxcywh_rel.split(rows), image.split(rows), strict=True)
    ]
    values = torch.cat([part.values for part in parts])
    return values.nan_to_num(0.0), torch.cat([part.indices for part in parts])


def cells_of(points_rel: Tensor, grid_wh: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Column and row (k,) of the cells that points (k, 2) lie in; the border belongs to the last cell.

    The original does not look at the border and writes into another row, or beyond its memory.
    """
    width, height = grid_wh
    col = (points_rel[:, 0] * width).long().clamp(0, width - 1)
    row = (points_rel[:, 1] * height).long().clamp(0, height - 1)
    return col, row


def assign(
    wh_rel: Tensor, anchors_rel: Tensor, own: Sequence[int], threshold: float, kind: str
) -> tuple[Tensor, Tensor]:
    """Which of a head's anchors learn which truths: truth (k,) in rising order, and position in `own` (k,).

    wh_rel: sizes of the truths (n, 2). anchors_rel: sizes of all anchors (m, 2). own: the head's anchors among them. A truth
    belongs to the anchor of the most similar shape, and, below a threshold of 1, to all whose `kind` of overlap exceeds it.
    """
    truths, anchors = _centred(wh_rel), _centred(anchors_rel)
    best = pairwise(iou, anchors, truths).argmax(0) if len(truths) else wh_rel.new_zeros(0, dtype=torch.long)
    chosen = torch.nn.functional.one_hot(best, len(anchors)).bool()
    if threshold < 1:
        chosen |= threshold < pairwise(getattr(measures, kind), anchors, truths).T
    truth, position = chosen[:, list(own)].nonzero().unbind(1)
    return truth, position


def _centred(wh: Tensor) -> Tensor:
    return torch.cat((torch.zeros_like(wh), wh), 1)


@dataclass(frozen=True)
class Shared:
    """Targets grouped by the box that learns them.

    places: the s different boxes. box_of: int64 (k,), the box of each target. turn: int64 (k,), how many targets of the same
    box come before it.
    """

    places: Places
    box_of: Tensor
    turn: Tensor

    def turns(self) -> Iterator[Tensor]:
        """Indices of the targets that come first in their box, then of those that come second, and so on.

        A later target of a box sees what the earlier ones have left there, as in the original, which takes them in order.
        """
        for number in range(int(self.turn.max()) + 1 if len(self.turn) else 0):
            yield (self.turn == number).nonzero()[:, 0]


def share(places: Places, shape: Sequence[int]) -> Shared:
    """Group the places of k targets, given in the order in which they count; shape: (images, anchors, h, w)."""
    _, anchors, height, width = shape
    key = ((places.image * anchors + places.anchor) * height + places.row) * width + places.col
    ordered, order = key.sort(stable=True)
    fresh = torch.ones_like(ordered, dtype=torch.bool)
    fresh[1:] = ordered[1:] != ordered[:-1]
    index = torch.arange(len(key), device=key.device)
    start = torch.where(fresh, index, 0).cummax(0).values if len(key) else index
    box_of, turn = torch.empty_like(order), torch.empty_like(order)
    box_of[order] = fresh.cumsum(0) - 1
    turn[order] = index - start
    first = order[fresh]
    return Shared(Places(*(each[first] for each in places)), box_of, turn)

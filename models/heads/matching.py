"""Ground truth of a batch and its assignment to boxes and anchors; shared by the losses of all heads."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from models.heads.base import locate
from models.heads.grid import Locations
from utils import boxes as measures
from utils.boxes import iou, pairwise
from utils.errors import InputError
from utils.files import read_text

logger = logging.getLogger(__name__)

_CPU_OVERLAPS = 2**16  # IoUs computed at a time; these fit into a processor's cache
_GPU_OVERLAPS = 2**24  # these fit into the memory of any GPU


class GroundTruth(NamedTuple):
    """The k objects of a batch.

    image: int64 (k,).
    cxcywh_rel: float32 (k, 4).
    class_ids: int64 (k,).
    padded: float32 (images, most, 4), the same boxes by image, padded with zeros.
    index_of: int64 (images, most), index of each padded entry among the k objects.
    """

    image: Tensor
    cxcywh_rel: Tensor
    class_ids: Tensor
    padded: Tensor
    index_of: Tensor


def read_ground_truth(labels: Tensor, most: int, classes: int) -> GroundTruth:
    """Read ground truth from labels (images, any, 5), see Head.loss; at most `most` objects per image.

    The rows of an image end at the first with cx = 0. Objects with a class outside 0 to classes - 1 are skipped with a
    warning, as in yolo_layer.c process_batch.
    """
    labels = labels[:, :most].float()
    present = (labels[..., 0] != 0).cumprod(1).bool()
    ids = labels[..., 4].long()
    known = present & (ids >= 0) & (ids < classes)
    image, column = known.nonzero().unbind(1)
    longest, skipped = 0, 0
    if labels.numel():
        longest, skipped = torch.stack((present.sum(1).max(), (present & ~known).sum())).tolist()
    if skipped:
        logger.warning("%d labels have a class that is not in 0 to %d: left out of the loss", skipped, classes - 1)
    padded = torch.where(known[..., None], labels[..., :4], 0.0)[:, :longest]
    index_of = (known.flatten().cumsum(0) - 1).view(known.shape)[:, :longest]
    return GroundTruth(image, labels[image, column, :4], ids[image, column], padded, index_of)


def map_classes(ids: Tensor, name: str | None, cfg_path: str, classes: int) -> Tensor:
    """Translate class ids (k,) by the file of the key `map`, whose line n holds the class for label n (utils.c read_map).

    Raises InputError for a class that the head does not have.
    """
    if name is None:
        return ids
    table = []
    for number, line in enumerate(read_text(locate(name, cfg_path), "class map").splitlines(), start=1):
        try:
            table.append(int(line))
        except ValueError:
            raise InputError(f"{name}:{number}: cannot read {line[:40]!r}, expected a class number") from None
        if not 0 <= table[-1] < classes:
            raise InputError(f"{name}:{number}: maps to class {table[-1]}, expected 0 to classes - 1 = {classes - 1}")
    return torch.tensor(table, device=ids.device)[ids]


def best_match(cxcywh_rel: Tensor, image: Tensor, padded: Tensor) -> tuple[Tensor, Tensor]:
    """Highest IoU (k,) of each box with an object of its image, and that object's column (k,) in `padded`."""
    if not padded.shape[1] or not len(cxcywh_rel):
        return cxcywh_rel.new_zeros(len(cxcywh_rel)), image.new_zeros(len(image))
    rows = max(1, (_CPU_OVERLAPS if padded.is_cpu else _GPU_OVERLAPS) // padded.shape[1])
    parts = [
        iou(some[:, None], padded.index_select(0, of)).max(1)
        for some, of in zip(cxcywh_rel.split(rows), image.split(rows), strict=True)
    ]
    values = torch.cat([part.values for part in parts])
    return values.nan_to_num(0.0), torch.cat([part.indices for part in parts])


def cells_of(points_rel: Tensor, grid_wh: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Column and row (k,) of the cells that contain points (k, 2); points on the far border belong to the last cell.

    The original does not check for these and writes to another row, or beyond its memory.
    """
    width, height = grid_wh
    col = (points_rel[:, 0] * width).long().clamp(0, width - 1)
    row = (points_rel[:, 1] * height).long().clamp(0, height - 1)
    return col, row


def match_anchors(
    wh_rel: Tensor, anchors_rel: Tensor, own: Sequence[int], threshold: float, kind: str
) -> tuple[Tensor, Tensor]:
    """Assign objects to a head's anchors: the one most similar in shape and, with threshold < 1, all with a higher IoU.

    wh_rel: sizes of the objects (n, 2).
    anchors_rel: sizes of all anchors (m, 2).
    own: indices of the head's anchors among them.
    kind: kind of IoU that is compared with `threshold`.
    Returns the object (k,), in ascending order, and the position in `own` (k,) of each assignment.
    """
    objects, anchors = centred(wh_rel), centred(anchors_rel)
    best = pairwise(iou, anchors, objects).argmax(0) if len(objects) else wh_rel.new_zeros(0, dtype=torch.long)
    chosen = torch.nn.functional.one_hot(best, len(anchors)).bool()
    if threshold < 1:
        chosen |= threshold < pairwise(getattr(measures, kind), anchors, objects).T
    index, position = chosen[:, list(own)].nonzero().unbind(1)
    return index, position


def centred(wh: Tensor) -> Tensor:
    """Boxes (..., 4) of sizes (..., 2), centred on the origin, to compare shapes."""
    return torch.cat((torch.zeros_like(wh), wh), -1)


@dataclass(frozen=True)
class TargetGroups:
    """Targets grouped by box.

    at: the s distinct boxes.
    box_of: int64 (k,), the box of each target.
    rank: int64 (k,), number of earlier targets of the same box.
    """

    at: Locations
    box_of: Tensor
    rank: Tensor

    def rounds(self) -> Iterator[Tensor]:
        """Yield the indices of the first target of every box, then of the second, and so on.

        Like this a later target of a box sees the delta left by the earlier ones, as in the original.
        """
        for number in range(int(self.rank.max()) + 1 if len(self.rank) else 0):
            yield (self.rank == number).nonzero()[:, 0]


def group_by_box(at: Locations, shape: Sequence[int]) -> TargetGroups:
    """Group k targets, given in the order in which they apply, by location; shape: (images, anchors, h, w)."""
    _, anchors, height, width = shape
    key = ((at.image * anchors + at.anchor) * height + at.row) * width + at.col
    ordered, order = key.sort(stable=True)
    fresh = torch.ones_like(ordered, dtype=torch.bool)
    fresh[1:] = ordered[1:] != ordered[:-1]
    index = torch.arange(len(key), device=key.device)
    start = torch.where(fresh, index, 0).cummax(0).values if len(key) else index
    box_of, rank = torch.empty_like(order), torch.empty_like(order)
    box_of[order] = fresh.cumsum(0) - 1
    rank[order] = index - start
    first = order[fresh]
    return TargetGroups(Locations(*(each[first] for each in at)), box_of, rank)

"""Suppression of boxes that find the same object again, as the original does it (src/box.c), without a loop over boxes.

The original goes through the boxes of one class from the best score down; each that is still alive removes every
later one whose overlap with it is greater than the threshold. The result is reproduced exactly by iterating
`alive[j] = no alive i < j overlaps j` until nothing changes, which ends at the sequential answer because each round makes
at least one more leading decision final. Where there are few candidates of each class, all their pairs are taken at once.
Otherwise sorted candidates are taken `BLOCK` at a time and those that survivors of earlier blocks remove are dropped first.
Memory is the larger of PAIRS and BLOCK x CHUNK overlaps, whatever the number of candidates.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from utils import boxes
from utils.boxes import Measure, pairwise

PAIRS = 1 << 21  # up to so many pairs of candidates are compared all at once
RIVALS = 100  # and so many for each on average; beyond that blocks, which compare without looking places up, are faster
BLOCK = 256  # candidates settled together
CHUNK = 256  # survivors a block is compared with at a time; a tile of 256 x 256 stays in the processor's cache
LIMIT = 1e9  # coordinates beyond it (an overflown exp) are cut, so that areas stay finite in float32

KINDS = ("default", "greedynms", "diounms", "cornersnms")


class Suppressed(NamedTuple):
    """What is left, best score first: row in the boxes given (int64), class (int64), score; each (n,)."""

    box_index: Tensor
    class_id: Tensor
    score: Tensor


def suppress(
    cxcywh: Tensor,
    scores: Tensor,
    threshold: float = 0.45,
    *,
    kind: str = "default",
    beta: float = 0.6,
    agnostic: bool = False,
    max_det: int | None = None,
) -> Suppressed:
    """Non-maximum suppression of every class by itself, or of all together when `agnostic`.

    cxcywh: (n, 4), in parts of the image's width and height (greedynms and diounms depend on the unit).
    scores: (n, classes); 0 where a score did not pass the confidence threshold. A box with several scores is a
    candidate once for each. Equal scores keep the order of the rows.
    kind: the cfg's nms_kind: "default" (do_nms_sort) and "cornersnms" compare IoU, "greedynms" the original's DIoU,
    "diounms" DIoU with exponent `beta` (diounms_sort). `max_det` best are returned.
    """
    assert cxcywh.shape == (len(scores), 4), f"boxes are {tuple(cxcywh.shape)}, scores {tuple(scores.shape)}"
    box_index, class_id = (scores > 0).nonzero(as_tuple=True)
    score = scores[box_index, class_id]
    group = torch.zeros_like(class_id) if agnostic else class_id
    order = score.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    finite = cxcywh.float().nan_to_num(nan=0).clamp(-LIMIT, LIMIT)
    alive = _survivors(finite[box_index[order]], group[order], _measure(kind, beta), threshold)
    kept = order[alive]
    kept = kept.sort().values  # back to row order, so that equal scores come out in it
    kept = kept[score[kept].argsort(descending=True, stable=True)][:max_det]
    return Suppressed(box_index[kept], class_id[kept], score[kept])


def _measure(kind: str, beta: float) -> Measure:
    """What diounms_sort compares with the threshold for a kind; "default" is do_nms_sort."""
    table: dict[str, Measure] = {
        "default": boxes.iou,
        "cornersnms": boxes.iou,
        "greedynms": boxes.diou,
        "diounms": partial(boxes.diou, exponent=beta),
    }
    return table[kind]


def _survivors(cxcywh: Tensor, group: Tensor, measure: Measure, threshold: float) -> Tensor:
    """Indices that survive; candidates (n, 4) sorted by group, then by falling score."""
    position = torch.arange(len(group), device=group.device)
    rivals = position - torch.searchsorted(group, group)  # better candidates of the same group
    if int(rivals.sum()) <= min(PAIRS, RIVALS * len(group)):
        return _survivors_by_pairs(cxcywh, position, rivals, measure, threshold)
    return _survivors_by_blocks(cxcywh, group, measure, threshold)


def _survivors_by_pairs(cxcywh: Tensor, position: Tensor, rivals: Tensor, measure: Measure, threshold: float) -> Tensor:
    """The same for few candidates in each group: only pairs of one group are compared, all at once."""
    weak = position.repeat_interleave(rivals)
    ends = rivals.cumsum(0)
    strong = torch.arange(len(weak), device=weak.device) - (ends - position).repeat_interleave(rivals)
    columns = (
        cxcywh.T.contiguous()
    )  # each coordinate by itself, in one piece: gathers and sums are several times faster
    conflict = measure(columns.index_select(1, strong).T, columns.index_select(1, weak).T) > threshold
    strong, weak = strong[conflict], weak[conflict]
    alive = torch.ones_like(position, dtype=torch.bool)
    while True:
        again = torch.ones_like(alive)
        again[weak[alive[strong]]] = False
        if torch.equal(again, alive):
            return position[alive]
        alive = again


def _survivors_by_blocks(cxcywh: Tensor, group: Tensor, measure: Measure, threshold: float) -> Tensor:
    """Indices that survive; candidates (n, 4) sorted by group, then by falling score."""
    first_of_group = torch.searchsorted(group, group)
    kept = group.new_empty(len(group))
    count = 0
    for start in range(0, len(group), BLOCK):
        block = slice(start, start + BLOCK)
        # Survivors of earlier blocks are sorted too: only the tail that shares the block's first group matters.
        earlier = int(torch.searchsorted(kept[:count], first_of_group[start]))
        removed = _removed_by(cxcywh[kept[earlier:count]], cxcywh[block], measure, threshold)
        removed &= group[block] == group[start]
        alive = _settle(cxcywh[block], group[block], ~removed, measure, threshold)
        survivors = alive.nonzero()[:, 0] + start
        kept[count : count + len(survivors)] = survivors
        count += len(survivors)
    return kept[:count]


def _removed_by(strong: Tensor, weak: Tensor, measure: Measure, threshold: float) -> Tensor:
    """(len(weak),) bool: overlaps any of `strong` by more than the threshold."""
    removed = weak.new_zeros(len(weak), dtype=torch.bool)
    for chunk in strong.split(CHUNK):
        if len(chunk):
            removed |= pairwise(measure, chunk, weak).amax(0) > threshold
    return removed


def _settle(cxcywh: Tensor, group: Tensor, alive: Tensor, measure: Measure, threshold: float) -> Tensor:
    """Greedy suppression inside one block: the fixpoint of `alive[j] = no alive i < j of its group overlaps j`."""
    conflict = (pairwise(measure, cxcywh, cxcywh) > threshold) & (group[:, None] == group[None, :])
    conflict = conflict.triu(1).to(cxcywh.dtype)
    candidates = alive.to(cxcywh.dtype)
    settled = candidates
    while True:
        again = candidates * (settled @ conflict == 0)
        if torch.equal(again, settled):
            return settled > 0
        settled = again

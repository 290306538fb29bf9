"""Non-maximum suppression as in the original (src/box.c), without a loop over boxes.

The original visits the boxes of a class by descending score; each surviving box suppresses every later one whose overlap
exceeds the threshold. Iterating `alive[j] = no alive i < j overlaps j` until nothing changes gives exactly that result,
since every round makes at least one more leading decision final. With few candidates per class all pairs are compared at
once. Otherwise sorted candidates are processed in blocks of `BLOCK`, after dropping those that survivors of earlier blocks
suppress. Memory is at most PAIRS or BLOCK x CHUNK overlaps, whatever the number of candidates.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from utils import boxes
from utils.boxes import Measure, pairwise

PAIRS = 1 << 21  # maximum number of pairs compared at once
RIVALS = 100  # maximum mean number of pairs per candidate; beyond it blocks, which need no gather, are faster
BLOCK = 256  # candidates resolved together
CHUNK = 256  # survivors compared with a block at a time; a tile of 256 x 256 fits into the CPU cache
LIMIT = 1e9  # coordinates are clamped to it (exp may overflow) so that areas stay finite in float32


class Suppressed(NamedTuple):
    """Surviving candidates, best score first: row of the box (int64), class (int64), score; each (n,)."""

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
    """Suppress boxes within each class, or across all classes if `agnostic`.

    cxcywh: (n, 4), relative to the image's width and height (greedynms and diounms depend on the unit).
    scores: (n, classes); 0 where a score is below the confidence threshold. A box is one candidate per score above 0.
        Equal scores keep the order of the rows.
    kind: the cfg's nms_kind: "default" (do_nms_sort) and "cornersnms" compare IoU, "greedynms" the original's DIoU,
        "diounms" DIoU with exponent `beta` (diounms_sort).
    max_det: maximum number of results.
    """
    assert cxcywh.shape == (len(scores), 4), f"boxes are {tuple(cxcywh.shape)}, scores {tuple(scores.shape)}"
    box_index, class_id = (scores > 0).nonzero(as_tuple=True)
    score = scores[box_index, class_id]
    group = torch.zeros_like(class_id) if agnostic else class_id
    order = score.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    alive = _survivors(finite(cxcywh)[box_index[order]], group[order], _measure(kind, beta), threshold)
    kept = order[alive]
    kept = kept.sort().values  # in row order, which the stable sort keeps for equal scores
    kept = kept[score[kept].argsort(descending=True, stable=True)][:max_det]
    return Suppressed(box_index[kept], class_id[kept], score[kept])


def finite(boxes: Tensor) -> Tensor:
    """Return the boxes as float32, clamped to LIMIT, with NaN replaced by 0."""
    return boxes.float().nan_to_num(nan=0).clamp(-LIMIT, LIMIT)


def _measure(kind: str, beta: float) -> Measure:
    """Return the overlap measure that diounms_sort, or do_nms_sort for "default", compares with the threshold."""
    table: dict[str, Measure] = {
        "default": boxes.iou,
        "cornersnms": boxes.iou,
        "greedynms": boxes.diou,
        "diounms": partial(boxes.diou, exponent=beta),
    }
    return table[kind]


def _survivors(cxcywh: Tensor, group: Tensor, measure: Measure, threshold: float) -> Tensor:
    """Return the indices of the survivors; candidates (n, 4) are sorted by group, then by descending score."""
    position = torch.arange(len(group), device=group.device)
    rivals = position - torch.searchsorted(group, group)  # better candidates of the same group
    if int(rivals.sum()) <= min(PAIRS, RIVALS * len(group)):
        return _survivors_by_pairs(cxcywh, position, rivals, measure, threshold)
    return _survivors_by_blocks(cxcywh, group, measure, threshold)


def _survivors_by_pairs(cxcywh: Tensor, position: Tensor, rivals: Tensor, measure: Measure, threshold: float) -> Tensor:
    """`_survivors` for few candidates per group: compare all pairs within groups at once."""
    weak = position.repeat_interleave(rivals)
    ends = rivals.cumsum(0)
    strong = torch.arange(len(weak), device=weak.device) - (ends - position).repeat_interleave(rivals)
    columns = cxcywh.T.contiguous()  # contiguous coordinates: gathers and sums are several times faster
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
    """Return the indices of the survivors; candidates (n, 4) are sorted by group, then by descending score."""
    first_of_group = torch.searchsorted(group, group)
    kept = group.new_empty(len(group))
    count = 0
    for start in range(0, len(group), BLOCK):
        block = slice(start, start + BLOCK)
        # Earlier survivors are sorted too: only the tail in the block's first group matters.
        earlier = int(torch.searchsorted(kept[:count], first_of_group[start]))
        removed = _removed_by(cxcywh[kept[earlier:count]], cxcywh[block], measure, threshold)
        removed &= group[block] == group[start]
        alive = _resolve(cxcywh[block], group[block], ~removed, measure, threshold)
        survivors = alive.nonzero()[:, 0] + start
        kept[count : count + len(survivors)] = survivors
        count += len(survivors)
    return kept[:count]


def _removed_by(strong: Tensor, weak: Tensor, measure: Measure, threshold: float) -> Tensor:
    """Return bool (len(weak),): whether any of `strong` overlaps the box by more than the threshold."""
    removed = weak.new_zeros(len(weak), dtype=torch.bool)
    for chunk in strong.split(CHUNK):
        if len(chunk):
            removed |= pairwise(measure, chunk, weak).amax(0) > threshold
    return removed


def _resolve(cxcywh: Tensor, group: Tensor, alive: Tensor, measure: Measure, threshold: float) -> Tensor:
    """Greedy suppression within a block: the fixed point of `alive[j] = no alive i < j of its group overlaps j`."""
    conflict = (pairwise(measure, cxcywh, cxcywh) > threshold) & (group[:, None] == group[None, :])
    conflict = conflict.triu(1).to(cxcywh.dtype)
    candidates = alive.to(cxcywh.dtype)
    resolved = candidates
    while True:
        again = candidates * (resolved @ conflict == 0)
        if torch.equal(again, resolved):
            return resolved > 0
        resolved = again

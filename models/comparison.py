"""Two models on the same input: where their layers part, and whether their boxes agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from models.network import Network
from utils.boxes import iou, pairwise, xyxy_to_cxcywh
from utils.detections import Detections

PARTED = 1e-3  # standard deviations of a layer's output that rounding does not explain
SAME_OVERLAP, SAME_SCORE = 0.99, 0.01  # of boxes that count as the same
_PART = 16  # layers that are computed and held at a time


@dataclass(frozen=True)
class LayerDifference:
    """Of the outputs of one layer: largest and mean difference, and the spread (standard deviation) of the first one's."""

    index: int
    name: str
    largest: float
    mean: float
    spread: float

    @property
    def parted(self) -> bool:
        return not self.largest <= PARTED * max(self.spread, 1e-6)


@dataclass(frozen=True)
class BoxMatches:
    """same: pairs of one class with an overlap of 0.99 and scores within 0.01; only_a, only_b: boxes without such a partner.

    least_overlap, largest_score: of the pairs of one class that overlap most, whether they count as the same or not. paired: there
    are such pairs.
    """

    same: int
    only_a: int
    only_b: int
    least_overlap: float
    largest_score: float
    paired: bool = False


def layer_differences(a: Network, b: Network, images: Tensor) -> Iterator[LayerDifference]:
    """Layer by layer as long as both have the same type and shape there; images (n, channels, height, width)."""
    common = 0
    for one, other in zip(a.plan.steps, b.plan.steps, strict=False):
        if (one.section.names, one.shape) != (other.section.names, other.shape):
            break
        common += 1
    for start in range(0, common, _PART):
        indices = range(start, min(start + _PART, common))
        with torch.inference_mode():
            mine, theirs = a.outputs(images, indices), b.outputs(images, indices)
        for index in indices:
            error = (mine[index].float() - theirs[index].float()).abs()
            spread = float(mine[index].float().std(correction=0))
            yield LayerDifference(index, a.plan.steps[index].raw.name, float(error.max()), float(error.mean()), spread)


def box_matches(a: Detections, b: Detections) -> BoxMatches:
    """Each box of `a` with the box of its class in `b` that it overlaps most."""
    if not len(a) or not len(b):
        return BoxMatches(0, len(a), len(b), 1.0, 0.0)
    overlaps = pairwise(iou, *(xyxy_to_cxcywh(torch.from_numpy(found.xyxy)) for found in (a, b)))
    classes = torch.from_numpy(a.class_ids)[:, None] == torch.from_numpy(b.class_ids)[None]
    overlaps = torch.where(classes, overlaps, 0.0)
    best, place = overlaps.max(1)
    scores = (torch.from_numpy(a.scores) - torch.from_numpy(b.scores)[place]).abs()
    near = (best >= SAME_OVERLAP) & (scores <= SAME_SCORE)
    same = len(place[near].unique())
    paired = best > 0.5
    return BoxMatches(
        same=same,
        only_a=len(a) - int(near.sum()),
        only_b=len(b) - same,
        least_overlap=float(best[paired].min()) if paired.any() else 1.0,
        largest_score=float(scores[paired].max()) if paired.any() else 0.0,
        paired=bool(paired.any()),
    )

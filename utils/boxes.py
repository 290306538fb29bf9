"""Box formats and overlap measures, with the original program's definitions (src/box.c).

Every measure takes boxes as cxcywh (centre x, centre y, width, height; any unit, the same for both sides) in tensors
(..., 4) whose leading shapes broadcast, and returns the broadcast shape: `iou(a, b)` of two (n, 4) tensors compares
element by element, `pairwise(iou, a, b)` compares everything with everything. Degenerate boxes give the original's
values (0 overlap, no penalty) and never NaN. All measures are differentiable.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Measure = Callable[[Tensor, Tensor], Tensor]

DIOU_EXPONENT = 0.6  # of the penalty in the original's box_diou; 1 in the paper (arXiv:1911.08287)
CIOU_GUARD = 1e-6  # box_ciou, in the denominator of alpha


def cxcywh_to_xyxy(cxcywh: Tensor) -> Tensor:
    """Convert centre and size (..., 4) to left, top, right, bottom (..., 4) in the same unit."""
    centre, half = cxcywh[..., :2], cxcywh[..., 2:] / 2
    return torch.cat((centre - half, centre + half), -1)


def xyxy_to_cxcywh(xyxy: Tensor) -> Tensor:
    """Convert left, top, right, bottom (..., 4) to centre and size (..., 4) in the same unit."""
    low, high = xyxy[..., :2], xyxy[..., 2:]
    return torch.cat(((low + high) / 2, high - low), -1)


def iou(a_cxcywh: Tensor, b_cxcywh: Tensor) -> Tensor:
    """Intersection over union in [0, 1]; 0 if the union is empty. Source: box_iou."""
    return _iou_and_union(a_cxcywh, b_cxcywh)[0]


def giou(a_cxcywh: Tensor, b_cxcywh: Tensor) -> Tensor:
    """IoU minus the fraction of the enclosing box covered by neither box, in [-1, 1]. Source: arXiv:1902.09630, box_giou."""
    overlap, union = _iou_and_union(a_cxcywh, b_cxcywh)
    width, height = _enclosing(a_cxcywh, b_cxcywh)
    hull = width * height
    return overlap - _ratio(hull - union, hull)


def diou(a_cxcywh: Tensor, b_cxcywh: Tensor, exponent: float = DIOU_EXPONENT) -> Tensor:
    """IoU minus (squared centre distance / squared diagonal of the enclosing box) ** exponent.

    Source: box_diou with the default exponent, box_diounms with the cfg's beta_nms. The penalty depends on the unit
    of each axis: the original uses fractions of the image's width and height.
    """
    overlap, _ = _iou_and_union(a_cxcywh, b_cxcywh)
    distance = _distance(a_cxcywh, b_cxcywh)
    # The power has no finite slope at 0; clamping makes the gradient 0 there.
    return overlap - distance.clamp(min=torch.finfo(distance.dtype).tiny) ** exponent


def ciou(a_cxcywh: Tensor, b_cxcywh: Tensor) -> Tensor:
    """DIoU with exponent 1 minus a penalty for different aspect ratios; `b` is the ground truth. Source: box_ciou."""
    overlap, _ = _iou_and_union(a_cxcywh, b_cxcywh)
    width_a, height_a = a_cxcywh[..., 2], a_cxcywh[..., 3]
    width_b, height_b = b_cxcywh[..., 2], b_cxcywh[..., 3]
    angle = torch.atan(width_b / height_b) - torch.atan(width_a / height_a)
    aspect = 4 / math.pi**2 * angle**2
    alpha = aspect / (1 - overlap + aspect + CIOU_GUARD)
    penalty = _distance(a_cxcywh, b_cxcywh) + alpha * aspect
    width, height = _enclosing(a_cxcywh, b_cxcywh)
    return overlap - penalty.masked_fill((width == 0) & (height == 0), 0)


def pairwise(measure: Measure, a_cxcywh: Tensor, b_cxcywh: Tensor) -> Tensor:
    """Return `measure` of every box of (n, 4) with every box of (m, 4), as (n, m)."""
    return measure(a_cxcywh[:, None, :], b_cxcywh[None, :, :])


def _iou_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """box_iou and box_union: intersections of negative width or height are empty; areas are width times height."""
    ax, ay, aw, ah = a.unbind(-1)
    bx, by, bw, bh = b.unbind(-1)
    width = torch.minimum(ax + aw / 2, bx + bw / 2) - torch.maximum(ax - aw / 2, bx - bw / 2)
    height = torch.minimum(ay + ah / 2, by + bh / 2) - torch.maximum(ay - ah / 2, by - bh / 2)
    intersection = width.clamp(min=0) * height.clamp(min=0)
    union = aw * ah + bw * bh - intersection
    return _ratio(intersection, union), union


def _enclosing(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Width and height of the smallest box around both: box_c."""
    ax, ay, aw, ah = a.unbind(-1)
    bx, by, bw, bh = b.unbind(-1)
    width = torch.maximum(ax + aw / 2, bx + bw / 2) - torch.minimum(ax - aw / 2, bx - bw / 2)
    height = torch.maximum(ay + ah / 2, by + bh / 2) - torch.minimum(ay - ah / 2, by - bh / 2)
    return width, height


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance of the centres over the squared diagonal of the enclosing box."""
    width, height = _enclosing(a, b)
    squared = (a[..., 0] - b[..., 0]) ** 2 + (a[..., 1] - b[..., 1]) ** 2
    return _ratio(squared, width**2 + height**2)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient of non-negative numbers, with 0 / 0 = 0; differentiable, and one pass faster than a mask."""
    return numerator / denominator.clamp(min=torch.finfo(denominator.dtype).tiny)

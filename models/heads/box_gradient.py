"""Gradients of the overlap losses with respect to a box, as the original writes them by hand (box.c dx_box_iou).

They are not the derivatives of IoU: sizes miss a factor of one half, the enclosing box of DIoU and CIoU has its own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from utils.boxes import CIOU_GUARD


class _Sides(NamedTuple):
    """Top, bottom, left, right of boxes, or a derivative with respect to each; (k,) each."""

    top: Tensor
    bottom: Tensor
    left: Tensor
    right: Tensor


def box_gradient(found_cxcywh: Tensor, truth_cxcywh: Tensor, kind: str) -> Tensor:
    """Direction in which cx, cy, w, h (k, 4) of the found boxes (k, 4) improve the overlap with the truths (k, 4).

    kind: "iou", "giou", "diou" or "ciou". Values may be NaN or infinite where the original's are.
    """
    found, truth = _sides(found_cxcywh), _sides(truth_cxcywh)
    height = torch.minimum(found.bottom, truth.bottom) - torch.maximum(found.top, truth.top)
    width = torch.minimum(found.right, truth.right) - torch.maximum(found.left, truth.left)
    common = width * height  # positive also when both are negative, as in the original
    area = (found.bottom - found.top) * (found.right - found.left)
    union = area + (truth.bottom - truth.top) * (truth.right - truth.left) - common
    d_common = _inner(found, truth, width, height)
    d_union = _Sides(*(a - i for a, i in zip(_d_area(found), d_common, strict=True)))
    d_iou = [
        torch.where(union > 0, (union * i - common * u) / (union * union), 0.0)
        for i, u in zip(d_common, d_union, strict=True)
    ]
    gradient = _Sides(*d_iou)
    # Corners of a box without extent: the second line of each pair sees what the first has written.
    upright, forward = found.top < found.bottom, found.left < found.right
    top = torch.where(upright, gradient.top, gradient.bottom)
    left = torch.where(forward, gradient.left, gradient.right)
    gradient = _Sides(top, torch.where(upright, gradient.bottom, top), left, torch.where(forward, gradient.right, left))
    apart = (width <= 0) | (height <= 0)
    if kind == "giou":
        gradient = _with_hull(gradient, found, truth, union, d_union, apart)
    centre_and_size = torch.stack(
        (
            gradient.left + gradient.right,
            gradient.top + gradient.bottom,
            gradient.right - gradient.left,
            gradient.bottom - gradient.top,
        ),
        1,
    )
    if kind not in ("diou", "ciou"):
        return centre_and_size
    distance, diagonal = _distance_gradient(found_cxcywh, truth_cxcywh, found, truth)
    if kind == "ciou":
        distance = distance + _aspect_gradient(found_cxcywh, truth_cxcywh, common / union)
    together = torch.where(diagonal[:, None] > 0, centre_and_size + distance, centre_and_size)
    return torch.where(apart[:, None], distance, together)


def _sides(cxcywh: Tensor) -> _Sides:
    cx, cy, w, h = cxcywh.unbind(1)
    return _Sides(cy - h / 2, cy + h / 2, cx - w / 2, cx + w / 2)


def _d_area(box: _Sides) -> _Sides:
    width, height = box.right - box.left, box.bottom - box.top
    return _Sides(-width, width, -height, height)


def _inner(found: _Sides, truth: _Sides, width: Tensor, height: Tensor) -> _Sides:
    """Derivative of the intersection: only sides of the found box that bound it count."""
    return _Sides(
        torch.where(found.top > truth.top, -width, 0.0),
        torch.where(found.bottom < truth.bottom, width, 0.0),
        torch.where(found.left > truth.left, -height, 0.0),
        torch.where(found.right < truth.right, height, 0.0),
    )


def _with_hull(gradient: _Sides, found: _Sides, truth: _Sides, union: Tensor, d_union: _Sides, apart: Tensor) -> _Sides:
    """GIoU: the term of the enclosing box is added, or stands alone where the boxes are apart."""
    width = torch.maximum(found.right, truth.right) - torch.minimum(found.left, truth.left)
    height = torch.maximum(found.bottom, truth.bottom) - torch.minimum(found.top, truth.top)
    hull = width * height
    d_hull = (
        torch.where(found.top < truth.top, -width, 0.0),
        torch.where(found.bottom > truth.bottom, width, 0.0),
        torch.where(found.left < truth.left, -height, 0.0),
        torch.where(found.right > truth.right, height, 0.0),
    )
    terms = [(hull * u - union * c) / (hull * hull) for u, c in zip(d_union, d_hull, strict=True)]
    summed = [torch.where(hull > 0, g + term, g) for g, term in zip(gradient, terms, strict=True)]
    return _Sides(*(torch.where(apart, term, each) for term, each in zip(terms, summed, strict=True)))


def _distance_gradient(
    found_cxcywh: Tensor, truth_cxcywh: Tensor, found: _Sides, truth: _Sides
) -> tuple[Tensor, Tensor]:
    """DIoU: (k, 4) of the distance of the centres relative to the diagonal of the enclosing box, and its square (k,)."""
    width = torch.maximum(found.right, truth.right) - torch.minimum(found.left, truth.left)
    height = torch.maximum(found.bottom, truth.bottom) - torch.minimum(found.top, truth.top)
    diagonal = width * width + height * height
    away = truth_cxcywh[:, :2] - found_cxcywh[:, :2]
    squared = away.square().sum(1)
    above, below = (found.top < truth.top).float(), (found.bottom > truth.bottom).float()
    before, behind = (found.left < truth.left).float(), (found.right > truth.right).float()
    extents = torch.stack((width, height), 1)
    by_centre = 2 * extents * torch.stack((behind - before, below - above), 1)
    by_size = extents * torch.stack((behind + before, below + above), 1)
    square = (diagonal * diagonal)[:, None]
    centre = (2 * away * diagonal[:, None] - by_centre * squared[:, None]) / square
    return torch.cat((centre, by_size * squared[:, None] / square), 1), diagonal


def _aspect_gradient(found_cxcywh: Tensor, truth_cxcywh: Tensor, overlap: Tensor) -> Tensor:
    """CIoU: (k, 4) of the unlike aspect ratios."""
    w, h = found_cxcywh[:, 2], found_cxcywh[:, 3]
    angle = torch.atan(truth_cxcywh[:, 2] / truth_cxcywh[:, 3]) - torch.atan(w / h)
    aspect = 4 / math.pi**2 * angle * angle
    alpha = aspect / (1 - overlap + aspect + CIOU_GUARD)
    slope = alpha * 8 / math.pi**2 * angle
    nothing = torch.zeros_like(slope)
    return torch.stack((nothing, nothing, slope * h, -slope * w), 1)

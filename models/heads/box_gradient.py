"""The original's hand-written gradients of the IoU losses with respect to a box (box.c dx_box_iou).

They are not the exact derivatives: sizes lack a factor of one half, and the enclosing box of DIoU and CIoU differs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from utils.boxes import CIOU_GUARD


class _Sides(NamedTuple):
    """Top, bottom, left and right of k boxes, or derivatives with respect to them; each (k,)."""

    top: Tensor
    bottom: Tensor
    left: Tensor
    right: Tensor


def box_gradient(predicted_cxcywh: Tensor, wanted_cxcywh: Tensor, kind: str) -> Tensor:
    """Gradient (k, 4) in cx, cy, w, h that increases the overlap of predicted boxes (k, 4) with wanted boxes (k, 4).

    kind: "iou", "giou", "diou" or "ciou". Values are NaN or infinite wherever the original's may be.
    """
    predicted, wanted = _sides(predicted_cxcywh), _sides(wanted_cxcywh)
    height = torch.minimum(predicted.bottom, wanted.bottom) - torch.maximum(predicted.top, wanted.top)
    width = torch.minimum(predicted.right, wanted.right) - torch.maximum(predicted.left, wanted.left)
    common = width * height  # also positive if both are negative, as in the original
    area = (predicted.bottom - predicted.top) * (predicted.right - predicted.left)
    union = area + (wanted.bottom - wanted.top) * (wanted.right - wanted.left) - common
    d_common = _inner(predicted, wanted, width, height)
    d_union = _Sides(*(a - i for a, i in zip(_d_area(predicted), d_common, strict=True)))
    d_iou = [
        torch.where(union > 0, (union * i - common * u) / (union * union), 0.0)
        for i, u in zip(d_common, d_union, strict=True)
    ]
    gradient = _Sides(*d_iou)
    # For a box without extent, the second assignment of each pair reads the result of the first, as in the original.
    upright, forward = predicted.top < predicted.bottom, predicted.left < predicted.right
    top = torch.where(upright, gradient.top, gradient.bottom)
    left = torch.where(forward, gradient.left, gradient.right)
    gradient = _Sides(top, torch.where(upright, gradient.bottom, top), left, torch.where(forward, gradient.right, left))
    apart = (width <= 0) | (height <= 0)
    if kind == "giou":
        gradient = _with_enclosing(gradient, predicted, wanted, union, d_union, apart)
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
    distance, diagonal = _distance_gradient(predicted_cxcywh, wanted_cxcywh, predicted, wanted)
    if kind == "ciou":
        distance = distance + _aspect_gradient(predicted_cxcywh, wanted_cxcywh, common / union)
    together = torch.where(diagonal[:, None] > 0, centre_and_size + distance, centre_and_size)
    return torch.where(apart[:, None], distance, together)


def _sides(cxcywh: Tensor) -> _Sides:
    cx, cy, w, h = cxcywh.unbind(1)
    return _Sides(cy - h / 2, cy + h / 2, cx - w / 2, cx + w / 2)


def _d_area(box: _Sides) -> _Sides:
    width, height = box.right - box.left, box.bottom - box.top
    return _Sides(-width, width, -height, height)


def _inner(predicted: _Sides, wanted: _Sides, width: Tensor, height: Tensor) -> _Sides:
    """Derivative of the intersection; only sides of the predicted box that bound the intersection contribute."""
    return _Sides(
        torch.where(predicted.top > wanted.top, -width, 0.0),
        torch.where(predicted.bottom < wanted.bottom, width, 0.0),
        torch.where(predicted.left > wanted.left, -height, 0.0),
        torch.where(predicted.right < wanted.right, height, 0.0),
    )


def _with_enclosing(
    gradient: _Sides, predicted: _Sides, wanted: _Sides, union: Tensor, d_union: _Sides, apart: Tensor
) -> _Sides:
    """GIoU: add the term of the enclosing box; if the boxes do not overlap, it replaces the rest."""
    width = torch.maximum(predicted.right, wanted.right) - torch.minimum(predicted.left, wanted.left)
    height = torch.maximum(predicted.bottom, wanted.bottom) - torch.minimum(predicted.top, wanted.top)
    enclosing = width * height
    d_enclosing = (
        torch.where(predicted.top < wanted.top, -width, 0.0),
        torch.where(predicted.bottom > wanted.bottom, width, 0.0),
        torch.where(predicted.left < wanted.left, -height, 0.0),
        torch.where(predicted.right > wanted.right, height, 0.0),
    )
    terms = [(enclosing * u - union * c) / (enclosing * enclosing) for u, c in zip(d_union, d_enclosing, strict=True)]
    summed = [torch.where(enclosing > 0, g + term, g) for g, term in zip(gradient, terms, strict=True)]
    return _Sides(*(torch.where(apart, term, each) for term, each in zip(terms, summed, strict=True)))


def _distance_gradient(
    predicted_cxcywh: Tensor, wanted_cxcywh: Tensor, predicted: _Sides, wanted: _Sides
) -> tuple[Tensor, Tensor]:
    """DIoU: gradient (k, 4) of the relative distance between centres, and the squared diagonal (k,) of the enclosing box."""
    width = torch.maximum(predicted.right, wanted.right) - torch.minimum(predicted.left, wanted.left)
    height = torch.maximum(predicted.bottom, wanted.bottom) - torch.minimum(predicted.top, wanted.top)
    diagonal = width * width + height * height
    away = wanted_cxcywh[:, :2] - predicted_cxcywh[:, :2]
    squared = away.square().sum(1)
    above, below = (predicted.top < wanted.top).float(), (predicted.bottom > wanted.bottom).float()
    before, behind = (predicted.left < wanted.left).float(), (predicted.right > wanted.right).float()
    extents = torch.stack((width, height), 1)
    by_centre = 2 * extents * torch.stack((behind - before, below - above), 1)
    by_size = extents * torch.stack((behind + before, below + above), 1)
    square = (diagonal * diagonal)[:, None]
    centre = (2 * away * diagonal[:, None] - by_centre * squared[:, None]) / square
    return torch.cat((centre, by_size * squared[:, None] / square), 1), diagonal


def _aspect_gradient(predicted_cxcywh: Tensor, wanted_cxcywh: Tensor, overlap: Tensor) -> Tensor:
    """CIoU: gradient (k, 4) of the aspect-ratio term."""
    w, h = predicted_cxcywh[:, 2], predicted_cxcywh[:, 3]
    angle = torch.atan(wanted_cxcywh[:, 2] / wanted_cxcywh[:, 3]) - torch.atan(w / h)
    aspect = 4 / math.pi**2 * angle * angle
    alpha = aspect / (1 - overlap + aspect + CIOU_GUARD)
    slope = alpha * 8 / math.pi**2 * angle
    nothing = torch.zeros_like(slope)
    return torch.stack((nothing, nothing, slope * h, -slope * w), 1)

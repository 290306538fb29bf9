"""Overlap measures compared with the original's scalar definitions (src/box.c), restated in Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from utils.boxes import ciou, cxcywh_to_xyxy, diou, giou, iou, pairwise, xyxy_to_cxcywh

Box = tuple[float, float, float, float]


def scalar_parts(a: Box, b: Box) -> tuple[float, float, float, float]:
    """IoU, union, width and height of the enclosing box."""

    def edges(box: Box, axis: int) -> tuple[float, float]:
        return box[axis] - box[axis + 2] / 2, box[axis] + box[axis + 2] / 2

    extents = [(edges(a, axis), edges(b, axis)) for axis in (0, 1)]
    overlap = [min(p[1], q[1]) - max(p[0], q[0]) for p, q in extents]
    hull = [max(p[1], q[1]) - min(p[0], q[0]) for p, q in extents]
    inter = 0.0 if min(overlap) < 0 else overlap[0] * overlap[1]
    union = a[2] * a[3] + b[2] * b[3] - inter
    return (0.0 if inter == 0 or union == 0 else inter / union), union, hull[0], hull[1]


def scalar(name: str, a: Box, b: Box) -> float:
    overlap, union, width, height = scalar_parts(a, b)
    if name == "iou":
        return overlap
    if name == "giou":
        return overlap if width * height == 0 else overlap - (width * height - union) / (width * height)
    if width == height == 0:
        return overlap
    distance = ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) / (width**2 + height**2)
    if name.startswith("diou"):
        return overlap - distance ** float(name[4:] or 0.6)
    angle = 4 / math.pi**2 * (math.atan(b[2] / b[3]) - math.atan(a[2] / a[3])) ** 2
    return overlap - distance - angle * angle / (1 - overlap + angle + 1e-6)


MEASURES = {
    "iou": iou,
    "giou": giou,
    "diou": diou,
    "diou0.9": lambda a, b: diou(a, b, exponent=0.9),
    "ciou": ciou,
}

CASES: dict[str, tuple[Box, Box]] = {
    "the same": ((0.5, 0.5, 0.2, 0.3), (0.5, 0.5, 0.2, 0.3)),
    "inside": ((0.5, 0.5, 0.4, 0.4), (0.45, 0.55, 0.1, 0.2)),
    "apart": ((0.1, 0.1, 0.1, 0.1), (0.9, 0.8, 0.1, 0.2)),
    "touching": ((0.25, 0.5, 0.5, 0.5), (0.75, 0.5, 0.5, 0.5)),
    "apart on both axes (two negative extents)": ((0.1, 0.1, 0.1, 0.1), (0.9, 0.9, 0.1, 0.1)),
    "crossing": ((0.5, 0.5, 0.8, 0.1), (0.5, 0.5, 0.1, 0.8)),
    "a line": ((0.5, 0.5, 0.0, 0.2), (0.5, 0.5, 0.1, 0.2)),
    "one pixel": ((0.5, 0.5, 1 / 416, 1 / 416), (0.5, 0.5, 0.5, 0.5)),
    "larger than the image": ((0.5, 0.5, 3.0, 2.0), (0.4, 0.3, 0.5, 0.5)),
}


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("case", CASES)
def test_measures_are_the_originals(name: str, case: str) -> None:
    a, b = CASES[case]
    ours = MEASURES[name](torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64))
    assert float(ours) == pytest.approx(scalar(name, a, b), abs=1e-12)


@pytest.mark.parametrize("name", MEASURES)
def test_two_empty_boxes_overlap_nowhere_and_cost_nothing(name: str) -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.0, 0.0]], requires_grad=True)
    if name == "ciou":
        pytest.skip("its aspect ratio of 0 / 0 is undefined in the original too")
    value = MEASURES[name](boxes, boxes.detach())
    value.sum().backward()
    assert value.item() == pytest.approx(0, abs=1e-20)
    assert boxes.grad is not None and torch.isfinite(boxes.grad).all()


@pytest.mark.parametrize("name", MEASURES)
def test_pairwise_is_elementwise_of_all_pairs(name: str) -> None:
    a, b = torch.rand(7, 4, dtype=torch.float64), torch.rand(5, 4, dtype=torch.float64)
    table = pairwise(MEASURES[name], a, b)
    assert table.shape == (7, 5)
    np.testing.assert_allclose(table[3], MEASURES[name](a[3].expand(5, 4), b), rtol=1e-12)


def test_formats_are_inverses() -> None:
    boxes = torch.rand(20, 4)
    torch.testing.assert_close(xyxy_to_cxcywh(cxcywh_to_xyxy(boxes)), boxes)
    assert cxcywh_to_xyxy(torch.tensor([2.0, 3.0, 2.0, 4.0])).tolist() == [1, 1, 3, 5]

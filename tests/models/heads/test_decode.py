"""Decoding of boxes compared with slow loops over the formulas; thresholds, precision, dense boxes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.heads.base import Candidates, Head
from models.heads.yolo import YoloSection
from tests.models.heads.build import build_head

Found = tuple[int, tuple[float, ...], float, list[float]]  # image, cxcywh, objectness, scores
SIZES = ((10.0, 20.0), (30.0, 15.0), (5.0, 60.0))
ANCHORS = "anchors=10,20, 30,15, 5,60\n"
SIZE_WH = (96, 64)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def kept(scores: list[float], threshold: float) -> list[float]:
    return [score if score > threshold else 0.0 for score in scores]


def cells(x: Tensor, anchors: int) -> Iterator[tuple[int, int, int, int, list[float]]]:
    n, channels, height, width = x.shape
    split = x.reshape(n, anchors, channels // anchors, height, width)
    for image in range(n):
        for row in range(height):
            for col in range(width):
                for anchor in range(anchors):
                    yield image, row, col, anchor, split[image, anchor, :, row, col].tolist()


def slow_yolo(x: Tensor, threshold: float, *, new_coords: bool = False, scale: float = 1.0) -> list[Found]:
    found: list[Found] = []
    for image, row, col, position, v in cells(x, 2):
        w, h = SIZES[1:][position]
        activate: Callable[[float], float] = (lambda value: value) if new_coords else sigmoid
        cx, cy = (activate(value) * scale - (scale - 1) / 2 for value in v[:2])
        spread = [(2 * value) ** 2 if new_coords else math.exp(value) for value in v[2:4]]
        box = ((col + cx) / 4, (row + cy) / 3, spread[0] * w / 96, spread[1] * h / 64)
        objectness = activate(v[4])
        if objectness > threshold:
            found.append((image, box, objectness, kept([objectness * activate(c) for c in v[5:]], threshold)))
    return found


def slow_gaussian(x: Tensor, threshold: float, *, point: float = 0.0) -> list[Found]:
    found: list[Found] = []
    for image, row, col, position, v in cells(x, 2):
        w, h = (size * math.exp(v[k]) for size, k in zip(SIZES[1:][position], (4, 6), strict=True))
        w, h = w / 96, h / 64
        box = ((col + sigmoid(v[0])) / 4 - point * w, (row + sigmoid(v[2])) / 3 - point * h, w, h)
        certain = 1 - sum(sigmoid(v[k]) for k in (1, 3, 5, 7)) / 4
        objectness = sigmoid(v[8])
        if objectness > threshold:
            found.append((image, box, objectness, kept([objectness * certain * sigmoid(c) for c in v[9:]], threshold)))
    return found


def slow_region(x: Tensor, threshold: float, *, softmax: bool = True, floor: float = 0.0) -> list[Found]:
    found: list[Found] = []
    for image, row, col, position, v in cells(x, 3):
        w, h = SIZES[position]
        box = ((col + sigmoid(v[0])) / 4, (row + sigmoid(v[1])) / 3, math.exp(v[2]) * w / 4, math.exp(v[3]) * h / 3)
        objectness = sigmoid(v[4])
        objectness = 0.0 if objectness < floor else objectness
        total = sum(math.exp(c) for c in v[5:])
        classes = [math.exp(c) / total for c in v[5:]] if softmax else v[5:]
        scores = kept([objectness * c for c in classes], threshold)
        if objectness > threshold if softmax else any(scores):
            found.append((image, box, objectness, scores))
    return found


def slow_detection(x: Tensor, threshold: float, *, root: bool) -> list[Found]:
    found: list[Found] = []
    for image, values in enumerate(x.flatten(1).tolist()):
        classes, objects, boxes = values[:12], values[12:20], values[20:]
        for cell in range(4):
            for number in range(2):
                cx, cy, w, h = boxes[(cell * 2 + number) * 4 :][:4]
                w, h = (w * w, h * h) if root else (w, h)
                box = ((cx + cell % 2) / 2, (cy + cell // 2) / 2, w, h)
                objectness = objects[cell * 2 + number]
                scores = kept([objectness * c for c in classes[cell * 3 : cell * 3 + 3]], threshold)
                if any(scores):
                    found.append((image, box, objectness, scores))
    return found


YOLO = "[yolo]\nclasses=3\nnum=3\nmask=1,2\n" + ANCHORS
GAUSSIAN = "[Gaussian_yolo]\nclasses=3\nnum=3\nmask=1,2\n" + ANCHORS
REGION = "[region]\nclasses=3\nnum=3\n" + ANCHORS
DETECTION = "[detection]\nclasses=3\nnum=2\nside=2\ncoords=4\n"
CASES: list[tuple[str, str, int, Callable[[Tensor, float], list[Found]]]] = [
    ("yolo", YOLO, 16, slow_yolo),
    ("scale", YOLO + "scale_x_y=1.2\n", 16, lambda x, t: slow_yolo(x, t, scale=1.2)),
    ("new", YOLO + "scale_x_y=2\nnew_coords=1\n", 16, lambda x, t: slow_yolo(x, t, new_coords=True, scale=2.0)),
    ("gaussian", GAUSSIAN, 24, slow_gaussian),
    ("left_top", GAUSSIAN + "yolo_point=left_top\n", 24, lambda x, t: slow_gaussian(x, t, point=-0.5)),
    ("right_bottom", GAUSSIAN + "yolo_point=right_bottom\n", 24, lambda x, t: slow_gaussian(x, t, point=0.5)),
    ("region", REGION + "softmax=1\n", 24, slow_region),
    ("region_raw", REGION, 24, lambda x, t: slow_region(x, t, softmax=False)),
    ("classfix", REGION + "softmax=1\nclassfix=-1\n", 24, lambda x, t: slow_region(x, t, floor=0.5)),
]


def compare(found: Candidates, expected: list[Found], tolerance: float = 1e-5) -> None:
    assert found.image.tolist() == [each[0] for each in expected]
    assert found.cxcywh_rel.dtype == found.scores.dtype == torch.float32
    for values, index in ((found.cxcywh_rel, 1), (found.objectness, 2), (found.scores, 3)):
        wanted = torch.tensor([each[index] for each in expected], dtype=torch.float32).view(values.shape)
        torch.testing.assert_close(values, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("threshold", [0.001, 0.25, 0.9, 2.0])
@pytest.mark.parametrize(("text", "channels", "slow"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_grid_heads(text: str, channels: int, slow: Callable[[Tensor, float], list[Found]], threshold: float) -> None:
    head = build_head(text, channels)
    x = torch.randn(2, channels, 3, 4, generator=torch.Generator().manual_seed(1))
    compare(head.decode(head(x), threshold, SIZE_WH), slow(x, threshold))


@pytest.mark.parametrize("threshold", [0.001, 0.25, 5.0])
@pytest.mark.parametrize("root", [False, True])
def test_detection(threshold: float, root: bool) -> None:
    head = build_head(f"{DETECTION}sqrt={int(root)}\n", 52, 1, 1)
    x = torch.randn(2, 52, 1, 1, generator=torch.Generator().manual_seed(1))
    compare(head.decode(head(x), threshold, SIZE_WH), slow_detection(x, threshold, root=root))


def test_detection_softmax() -> None:
    head = build_head(f"{DETECTION}softmax=1\n", 52, 1, 1)
    x = torch.randn(2, 52, 1, 1)
    expected = x.clone()
    expected[:, :12] = x[:, :12].view(2, 4, 3).softmax(2).view(2, 12, 1, 1)
    torch.testing.assert_close(head(x), expected)


HEADS = [(text, channels, 4, 3) for _, text, channels, _ in CASES] + [(DETECTION, 52, 1, 1)]


@pytest.mark.parametrize(("text", "channels", "width", "height"), HEADS)
def test_dense_holds_what_decode_finds(text: str, channels: int, width: int, height: int) -> None:
    head = build_head(text, channels, width, height)
    output = head(torch.rand(2, channels, height, width))
    dense, found = head.dense(output, SIZE_WH), head.decode(output, 0.3, SIZE_WH)
    above = torch.where(dense.scores > 0.3, dense.scores, 0.0)
    chosen = above.sum(2) > 0
    some = found.scores.sum(1) > 0
    torch.testing.assert_close(dense.cxcywh_rel[chosen], found.cxcywh_rel[some])
    torch.testing.assert_close(above[chosen], found.scores[some])
    torch.testing.assert_close(dense.objectness[chosen], found.objectness[some])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("text", "channels", "width", "height"), HEADS)
def test_low_precision_is_decoded_in_float32(
    text: str, channels: int, width: int, height: int, dtype: torch.dtype
) -> None:
    head = build_head(text, channels, width, height).to(dtype)
    x = torch.randn(2, channels, height, width).to(dtype).contiguous(memory_format=torch.channels_last)
    low, exact = head.decode(head(x), 0.2, SIZE_WH), head.decode(head(x.float()), 0.2, SIZE_WH)
    assert torch.equal(low.image, exact.image)
    torch.testing.assert_close(low.cxcywh_rel, exact.cxcywh_rel)
    torch.testing.assert_close(low.scores, exact.scores)


def test_objectness_exactly_at_the_threshold_gives_no_box() -> None:
    head = build_head("[yolo]\nclasses=1\n", 6)
    assert len(head.decode(head(torch.zeros(1, 6, 3, 4)), 0.5, SIZE_WH).image) == 0
    found = head.decode(head(torch.zeros(1, 6, 3, 4)), 0.4999, SIZE_WH)
    assert len(found.image) == 12 and not found.scores.any()


def test_nan_gives_no_box() -> None:
    head = build_head("[yolo]\nclasses=1\n", 6)
    x = torch.full((1, 6, 3, 4), torch.nan)
    assert len(head.decode(head(x), 0.001, SIZE_WH).image) == 0


def test_size_of_the_grid_comes_from_the_tensor() -> None:
    head = build_head("[yolo]\nclasses=1\nanchors=16,16\n", 6)
    for height, width in ((1, 1), (5, 7), (2, 9)):
        found = head.decode(head(torch.full((1, 6, height, width), 1.0)), 0.1, (160, 320))
        assert len(found.image) == height * width
        last = found.cxcywh_rel[-1]
        centre = 1 / (1 + math.exp(-1))
        assert last[:2].tolist() == pytest.approx([(width - 1 + centre) / width, (height - 1 + centre) / height])
        assert last[2:].tolist() == pytest.approx([math.e * 16 / 160, math.e * 16 / 320])


TREE = "a -1\nb -1\na1 0\na2 0\nb1 1\nb2 1\na11 2\na12 2\n"


@pytest.fixture
def tree_head(tmp_path: Path) -> Head:
    (tmp_path / "classes.tree").write_text(TREE)
    text = "[region]\nclasses=8\nnum=1\nanchors=1,1\ntree=classes.tree\n"
    return build_head(text, 13, path=str(tmp_path / "net.cfg"))


def test_tree_softmax_within_groups(tree_head: Head) -> None:
    x = torch.randn(2, 13, 3, 4)
    found = tree_head(x)[:, 5:]
    expected = torch.cat([x[:, 5:][:, a:b].softmax(1) for a, b in ((0, 2), (2, 4), (4, 6), (6, 8))], 1)
    torch.testing.assert_close(found, expected)


def test_tree_finds_the_deepest_confident_class(tree_head: Head) -> None:
    x = torch.zeros(1, 13, 1, 2)
    x[0, 4] = 3.0
    x[0, 5, 0, 0], x[0, 7, 0, 0], x[0, 11, 0, 0] = 4.0, 4.0, 4.0  # a, a1, a11
    x[0, 6, 0, 1] = 4.0  # b; no class below it is confident
    found = tree_head.decode(tree_head(x), 0.25, SIZE_WH)
    sure = sigmoid(4.0)
    expected = torch.zeros(2, 8)
    expected[0, 6], expected[1, 1] = sure**3, sure
    torch.testing.assert_close(found.scores, expected)


def test_nms_settings_come_from_the_cfg() -> None:
    section = build_head("[yolo]\nclasses=1\nnms_kind=diounms\nbeta_nms=0.7\n", 6).section
    assert isinstance(section, YoloSection) and section.suppression() == ("diounms", 0.7)

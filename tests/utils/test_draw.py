from __future__ import annotations

import itertools

import numpy as np
import pytest

from utils import draw
from utils.detections import Detections
from utils.draw import GridImage, annotate, class_colour, class_name, image_grid, line_thickness, printable


def one(xyxy: tuple[float, float, float, float], class_id: int = 0) -> Detections:
    return Detections(
        xyxy=np.array([xyxy], np.float32), scores=np.array([0.5], np.float32), class_ids=np.array([class_id], np.int64)
    )


PLACES = {
    "inside": (20, 40, 80, 90),
    "at the top": (20, 0, 80, 30),
    "at the right edge": (110, 50, 119, 60),
    "the whole image": (0, 0, 120, 100),
    "beyond every edge": (-500, -500, 5000, 5000),
    "outside": (300, 300, 400, 400),
    "a point": (50, 50, 50, 50),
    "not finite": (float("nan"), -float("inf"), float("inf"), 50),
}


@pytest.mark.parametrize("place", PLACES)
def test_any_box_can_be_drawn(place: str) -> None:
    image = np.full((100, 120, 3), 100, np.uint8)
    drawn = annotate(image, one(PLACES[place]), ["thing"])
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    assert (image == 100).all(), "the image given is left alone"
    assert (drawn == class_colour(0)).all(-1).sum() > 100, "the label is in the image"


@pytest.mark.parametrize("size_wh", [(1, 1), (3, 500), (500, 3), (20, 20)])
def test_tiny_images(size_wh: tuple[int, int]) -> None:
    image = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    assert annotate(image, one((0, 0, 2, 2)), ["a very long name of a class"]).shape == image.shape


def test_box_lines_are_where_the_box_is() -> None:
    drawn = annotate(np.zeros((100, 120, 3), np.uint8), one((20, 40, 80, 90)), [], labels=False, thickness=1)
    rows, columns = np.nonzero(drawn.any(-1))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (20, 40, 80, 90)


def test_nothing_found_changes_nothing() -> None:
    image = np.full((10, 10, 3), 7, np.uint8)
    drawn = annotate(image, Detections.empty(), [])
    assert (drawn == image).all() and drawn is not image


def test_labels_and_scores_can_be_left_out() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    lit = [
        int(annotate(image, one((20, 40, 80, 90)), ["cat"], labels=labels, scores=scores).any(-1).sum())
        for labels, scores in [(True, True), (True, False), (False, True)]
    ]
    assert lit[0] > lit[1] > lit[2]


def test_labels_of_boxes_in_one_place_do_not_hide_each_other() -> None:
    """The labels of three equal boxes have as many filled pixels of each colour as the label of a single box."""
    alone, together = np.zeros((200, 200, 3), np.uint8), np.zeros((200, 200, 3), np.uint8)
    box, colours = np.array([[40, 60, 160, 140]]), [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    plain = int(draw.draw_boxes(alone, box, colours[:1], ["cat"], 1)[..., 0].astype(bool).sum())
    drawn = draw.draw_boxes(together, box.repeat(3, 0), colours, ["cat"] * 3, 1)
    inner = drawn.copy()
    inner[60:141, [40, 160]] = inner[[60, 140], 40:161] = 0
    tabs = [int((inner.astype(int) @ np.eye(3, dtype=int)[i] > 0).sum()) for i in range(3)]
    assert min(tabs) > 0.8 * (plain - 2 * (120 + 80)) > 100


def test_colours_differ_and_are_stable() -> None:
    colours = [class_colour(i) for i in range(80)]
    assert len(set(colours)) == 80
    assert colours == [class_colour(i) for i in range(80)]
    distances = [np.abs(np.subtract(a, b)).sum() for a, b in itertools.pairwise(colours)]
    assert min(distances) > 100, "neighbours are told apart"


def test_names() -> None:
    assert [class_name(["cat", ""], i) for i in range(3)] == ["cat", "class 1", "class 2"]


@pytest.mark.parametrize(
    ("text", "unicode", "plain"),
    [("cat", "cat", "cat"), ("zébré", "zébré", "zebre"), ("斑马", "斑马", "??"), ("a\tb\ud800", "a?b?", "a?b?")],
)
def test_names_in_other_scripts(text: str, unicode: str, plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "_OPENCV_DRAWS_UNICODE", True)
    assert printable(text) == unicode
    monkeypatch.setattr(draw, "_OPENCV_DRAWS_UNICODE", False)
    assert printable(text) == plain


def test_lines_grow_with_the_image() -> None:
    assert [line_thickness(*wh) for wh in ((64, 64), (640, 480), (3840, 2160))] == [1, 2, 10]


NONE = np.zeros((0, 4))


def image(width: int, height: int, level: int) -> GridImage:
    return GridImage(np.full((height, width, 3), level, np.uint8), NONE, [], [])


@pytest.mark.parametrize(
    ("count", "size_wh", "expected"),
    [(1, (64, 64), (416, 416)), (2, (128, 64), (832, 208)), (5, (64, 128), (624, 832)), (40, (64, 64), (1664, 1664))],
)
def test_cells_have_the_images_proportions(count: int, size_wh: tuple[int, int], expected: tuple[int, int]) -> None:
    made = image_grid([image(*size_wh, 0)] * count)
    assert made.shape[1::-1] == expected


def test_images_of_other_proportions_are_not_stretched() -> None:
    made = image_grid([image(100, 100, 0), image(100, 100, 0), image(200, 100, 0)])
    third = made[416:, :416, 0]
    rows = np.flatnonzero(third[:, 200] == 0)
    assert (rows[0], rows[-1]) == (104, 311)
    assert third[50, 200] == 114 and made[600, 600, 0] == 255


def test_boxes_lie_where_they_are_in_the_image() -> None:
    shown = GridImage(np.zeros((50, 50, 3), np.uint8), np.array([[10, 20, 30, 40]]), [1], [])
    rows, columns = np.nonzero((image_grid([shown]) == class_colour(1)).all(axis=2))
    scale = 416 / 50
    found = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
    np.testing.assert_allclose(found, np.array([10, 20, 30, 40]) * scale, atol=2)

"""Sheets of images with boxes."""

from __future__ import annotations

import numpy as np
import pytest

from utils.draw import GridImage, class_colour, image_grid

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

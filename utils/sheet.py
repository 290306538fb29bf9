"""Several pictures with boxes on one sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.draw import Image, class_colour, draw_boxes

CELL_PX = 416
MOST_CELLS = 16
_EMPTY, _AROUND = 255, 114


class Shown(NamedTuple):
    """A picture for a sheet, uint8 (height, width, 3) RGB; xyxy: (n, 4), pixels of it; texts: at each box."""

    picture: Image
    xyxy: NDArray[np.floating]
    class_ids: Sequence[int]
    texts: Sequence[str]


def sheet(shown: Sequence[Shown]) -> Image:
    """The first 16 pictures in a square of cells, uint8 RGB. Cells have the proportions that most pictures have."""
    shown = shown[:MOST_CELLS]
    assert shown, "a sheet of no pictures"
    columns = math.ceil(math.sqrt(len(shown)))
    ratio = float(np.median([each.picture.shape[1] / each.picture.shape[0] for each in shown]))
    width, height = (round(CELL_PX * min(1.0, side)) for side in (ratio, 1 / ratio))
    cells = np.full((math.ceil(len(shown) / columns) * columns, height, width, 3), _EMPTY, np.uint8)
    for place, each in enumerate(shown):
        cells[place] = _cell(each, (width, height))
    rows = cells.reshape(-1, columns, height, width, 3).swapaxes(1, 2)
    return rows.reshape(-1, columns * width, 3)


def _cell(shown: Shown, size_wh: tuple[int, int]) -> Image:
    """The picture with its boxes in the middle of a cell, as large as it fits. Boxes are drawn at the size that is seen."""
    height, width = shown.picture.shape[:2]
    scale = min(size_wh[0] / width, size_wh[1] / height)
    fitted_wh = [max(1, min(round(side * scale), most)) for side, most in zip((width, height), size_wh, strict=True)]
    kernel = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    fitted = np.asarray(cv2.resize(shown.picture, fitted_wh, interpolation=kernel), np.uint8)
    colours = [class_colour(class_id) for class_id in shown.class_ids]
    drawn = draw_boxes(fitted, np.asarray(shown.xyxy) * scale, colours, shown.texts)
    cell = np.full((size_wh[1], size_wh[0], 3), _AROUND, np.uint8)
    left, top = (size_wh[0] - fitted_wh[0]) // 2, (size_wh[1] - fitted_wh[1]) // 2
    cell[top : top + fitted_wh[1], left : left + fitted_wh[0]] = drawn
    cv2.rectangle(cell, (0, 0), (size_wh[0] - 1, size_wh[1] - 1), (_EMPTY, _EMPTY, _EMPTY), 1)
    return cell

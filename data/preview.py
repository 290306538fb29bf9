"""Pictures of what a network is trained on: `train_batch*.jpg`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.files import atomic_write

_CELL_PX = 416
_MOST_CELLS = 16
_QUALITY = 90
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def batch_sheet(
    images: NDArray[np.uint8], truth: NDArray[np.float32], names: Sequence[str], *, most: int = _MOST_CELLS
) -> NDArray[np.uint8]:
    """The first `most` pictures of a batch side by side with their boxes: uint8 (height, width, 3), RGB.

    images: uint8 (b, channels, height, width); truth: float32 (b, max, 5) as the data set gives them.
    """
    count = min(len(images), most)
    columns = math.ceil(math.sqrt(count))
    cells = [_cell(image, rows, names) for image, rows in zip(images[:count], truth[:count], strict=True)]
    height, width = cells[0].shape[:2]
    sheet = np.full((math.ceil(count / columns) * height, columns * width, 3), 255, np.uint8)
    for index, cell in enumerate(cells):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + height, left : left + width] = cell
    return sheet


def save_batch(path: str | Path, images: NDArray[np.uint8], truth: NDArray[np.float32], names: Sequence[str]) -> None:
    """Write `batch_sheet` as JPEG. Raises RunError if it cannot be written."""
    bgr = cv2.cvtColor(batch_sheet(images, truth, names), cv2.COLOR_RGB2BGR)
    with atomic_write(path) as stream:
        stream.write(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes())


def colour_of(class_id: int) -> tuple[int, int, int]:
    """RGB of a class: hues in steps of the golden ratio, so that neighbours differ."""
    hue = class_id * 0.618034 % 1
    pixel = cv2.cvtColor(np.array([[[hue * 360, 0.75, 1.0]]], np.float32), cv2.COLOR_HSV2RGB)[0, 0] * 255
    return int(pixel[0]), int(pixel[1]), int(pixel[2])


def _cell(image: NDArray[np.uint8], truth: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.uint8]:
    height, width = image.shape[1:]
    scale = _CELL_PX / max(height, width)
    size_wh = round(width * scale), round(height * scale)
    rgb = np.ascontiguousarray(np.broadcast_to(image.transpose(1, 2, 0), (height, width, 3)))
    kernel = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    cell = np.array(cv2.resize(rgb, size_wh, interpolation=kernel), np.uint8)
    for x, y, w, h, class_id in truth[truth[:, 2] > 0].tolist():
        left, top = round((x - w / 2) * size_wh[0]), round((y - h / 2) * size_wh[1])
        right, bottom = round((x + w / 2) * size_wh[0]), round((y + h / 2) * size_wh[1])
        _labelled_box(cell, (left, top, right, bottom), names[int(class_id)], colour_of(int(class_id)))
    cv2.rectangle(cell, (0, 0), (size_wh[0] - 1, size_wh[1] - 1), (255, 255, 255), 1)
    return cell


def _labelled_box(
    cell: NDArray[np.uint8], xyxy: tuple[int, int, int, int], name: str, colour: tuple[int, int, int]
) -> None:
    left, top, right, bottom = xyxy
    cv2.rectangle(cell, (left, top), (right, bottom), colour, 2)
    (text_width, text_height), below = cv2.getTextSize(name, _FONT, 0.4, 1)
    floor = max(top, text_height + below)
    cv2.rectangle(cell, (left, floor - text_height - below), (left + text_width, floor), colour, -1)
    cv2.putText(cell, name, (left, floor - below + 1), _FONT, 0.4, (0, 0, 0), 1, cv2.LINE_AA)

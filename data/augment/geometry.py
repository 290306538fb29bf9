"""Jitter, resize, letterbox and flip of a detector's image and boxes: crop a window, resize it to the network's input.

A window may extend beyond the image; the outside is filled with the image's mean colour. All of this follows
load_data_detection in the original's src/data.c (built with OpenCV), including its truncation to whole pixels.
Boxes are float32 (n, 5): centre x, centre y, width, height, all relative to the image, and class id.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from data.augment.base import coin, with_channels
from data.image import Image

BoxRows = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Margins:
    """Pixels cut off at each side of the image; negative values add pixels."""

    left: int
    right: int
    top: int
    bottom: int


@dataclass(frozen=True, kw_only=True)
class CropWindow:
    """A rectangle of an image in pixels; left and top may be negative. flip: mirror it after resizing."""

    left: int
    top: int
    width: int
    height: int
    flip: bool


def draw_margins(rng: np.random.Generator, size_wh: tuple[int, int], *, jitter: float, resize: float) -> Margins:
    """Draw random margins for an image of `size_wh` pixels.

    Each side moves independently by U(-1, 1) * int(jitter * length). `resize` adds a second margin, drawn once for
    left and top and once for right and bottom, uniform between the margins that make the image `resize` times smaller
    and `resize` times larger (resize < 1: only smaller). Every step truncates toward zero.
    """
    side = rng.random(4)
    shared = rng.random(2)
    width, height = size_wh
    left, right = _side_margins(width, side[:2], shared, jitter, resize)
    top, bottom = _side_margins(height, side[2:], shared, jitter, resize)
    return Margins(left=left, right=right, top=top, bottom=bottom)


def _side_margins(
    length: int, side: NDArray[np.float64], shared: NDArray[np.float64], jitter: float, resize: float
) -> tuple[int, int]:
    reach = int(length * jitter)
    moved = np.trunc(reach * (2 * side - 1))
    down = 1 / resize if resize > 1 else resize
    up = 1 / resize if resize < 1 else resize
    low = int(length * (1 - 1 / down) / 2)
    high = 0 if resize < 1 else int(length * (1 - 1 / up) / 2)
    first, second = np.trunc(moved + low + shared * (high - low))
    return int(first), int(second)


def letterbox_margins(margins: Margins, size_wh: tuple[int, int], net_wh: tuple[int, int]) -> Margins:
    """Widen the margins on two opposite sides until the window without jitter has the network's aspect ratio."""
    width, height = size_wh
    net_ratio = net_wh[0] / net_wh[1]
    if (width / height) / net_ratio > 1:
        extra = (width / net_ratio - height) / 2
        return replace(margins, top=int(margins.top - extra), bottom=int(margins.bottom - extra))
    extra = (height * net_ratio - width) / 2
    return replace(margins, left=int(margins.left - extra), right=int(margins.right - extra))


def crop_window(margins: Margins, size_wh: tuple[int, int], *, flip: bool) -> CropWindow:
    """Return the window inside the margins; the whole image if nothing remains."""
    width = size_wh[0] - margins.left - margins.right
    height = size_wh[1] - margins.top - margins.bottom
    if min(width, height, size_wh[0] - margins.left, size_wh[1] - margins.top) <= 0:
        return CropWindow(left=0, top=0, width=size_wh[0], height=size_wh[1], flip=flip)
    return CropWindow(left=margins.left, top=margins.top, width=width, height=height, flip=flip)


def crop_and_resize(image: Image, window: CropWindow, net_wh: tuple[int, int]) -> Image:
    """Crop the window, resize it to `net_wh` (bilinear) and flip it (image_data_augmentation, src/image_opencv.cpp)."""
    height, width = image.shape[:2]
    if (window.left, window.top, window.width, window.height) != (0, 0, width, height):
        image = _window_pixels(image, window)
    resized = with_channels(cv2.resize(image, net_wh, interpolation=cv2.INTER_LINEAR))
    return with_channels(cv2.flip(resized, 1)) if window.flip else resized


def _window_pixels(image: Image, window: CropWindow) -> Image:
    height, width, channels = image.shape
    x0, x1 = max(0, window.left), min(width, window.left + window.width)
    y0, y1 = max(0, window.top), min(height, window.top + window.height)
    mean = np.rint(cv2.mean(image)[:channels])
    if x0 >= x1 or y0 >= y1:
        return np.full((window.height, window.width, channels), mean, np.uint8)
    left, top = x0 - window.left, y0 - window.top
    right, bottom = window.width - left - (x1 - x0), window.height - top - (y1 - y0)
    inside = image[y0:y1, x0:x1]
    if not (left or top or right or bottom):
        return inside
    return with_channels(cv2.copyMakeBorder(inside, top, bottom, left, right, cv2.BORDER_CONSTANT, value=mean.tolist()))


def crop_boxes(
    boxes: BoxRows,
    window: CropWindow,
    size_wh: tuple[int, int],
    net_wh: tuple[int, int],
    *,
    classes: int,
    max_boxes: int,
    rng: np.random.Generator,
) -> BoxRows:
    """Return the boxes of an image of `size_wh` relative to its crop window, clipped to it, in random order.

    Only the first `max_boxes` shuffled boxes are used, without those outside the image or centred at (0, 0), those whose
    class is not below `classes`, and those less than a pixel wide or high at `net_wh`. The limit applies before the
    filter, as in the original (fill_truth_detection, correct_boxes).
    """
    boxes = boxes[rng.permutation(len(boxes))]
    kept = _on_image(boxes)[:max_boxes]
    cropped = _relative_to(boxes, window, size_wh)[:max_boxes]
    centre, size = cropped[:, :2], cropped[:, 2:4]
    kept &= (cropped[:, 4] >= 0) & (cropped[:, 4] < classes)
    kept &= (size >= 1 / np.array(net_wh, np.float32)).all(axis=1)
    kept &= ((centre > 0) & (centre <= 1)).all(axis=1)
    return cropped[kept]


def _on_image(boxes: BoxRows) -> NDArray[np.bool_]:
    centre, half = boxes[:, :2], boxes[:, 2:4] / 2
    outside = ((centre + half < 0) | (centre - half > 1)).any(axis=1)
    return ~(outside | (centre == 0).all(axis=1))


def _relative_to(boxes: BoxRows, window: CropWindow, size_wh: tuple[int, int]) -> BoxRows:
    size = np.array(size_wh, np.float32)
    scale = np.array((window.width, window.height), np.float32) / size
    offset = np.array((window.left, window.top), np.float32) / size / scale
    low = (boxes[:, :2] - boxes[:, 2:4] / 2) / scale - offset
    high = (boxes[:, :2] + boxes[:, 2:4] / 2) / scale - offset
    if window.flip:
        low[:, 0], high[:, 0] = 1 - high[:, 0], 1 - low[:, 0]
    low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
    return np.concatenate([(low + high) / 2, high - low, boxes[:, 4:5]], axis=1).astype(np.float32)


def random_symmetry(image: Image, boxes: BoxRows, rng: np.random.Generator) -> tuple[Image, BoxRows]:
    """Mirror an image and its boxes along each axis and, if it is square, transpose them, each with probability 1/2."""
    boxes = boxes.copy()
    for axis in (0, 1):
        if coin(rng):
            image = np.flip(image, 1 - axis)
            boxes[:, axis] = 1 - boxes[:, axis]
    if coin(rng) and image.shape[0] == image.shape[1]:
        image = image.transpose(1, 0, 2)
        boxes = boxes[:, [1, 0, 3, 2, 4]]
    return np.ascontiguousarray(image), boxes


def pad_boxes(boxes: BoxRows, max_boxes: int) -> BoxRows:
    """Pad the boxes to (max_boxes, 5); a zero row marks the end of the list for the loss."""
    rows = np.zeros((max_boxes, 5), np.float32)
    rows[: len(boxes)] = boxes[:max_boxes]
    return rows

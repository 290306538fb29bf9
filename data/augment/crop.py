"""Jitter, resize, letterbox and mirroring of an image: choosing a window and bringing it to the network's size.

A window may reach beyond the image; what lies outside has the image's mean colour. All of this is what
load_data_detection in the original's src/data.c does (the variant built with OpenCV), with its truncations to
whole pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""An image, (height, width, channels), RGB or grey, 0..255."""


def as_image(array: Any) -> Image:
    """What OpenCV gave, with the axis of the channels that it drops from grey images."""
    return np.asarray(array, np.uint8).reshape(*array.shape[:2], -1)


@dataclass(frozen=True, kw_only=True)
class Margins:
    """Pixels of the image cut off at each side; negative: pixels added."""

    left: int
    right: int
    top: int
    bottom: int


@dataclass(frozen=True, kw_only=True)
class Window:
    """A part of an image in pixels (left and top may be negative), mirrored after it has been resized if `flip`."""

    left: int
    top: int
    width: int
    height: int
    flip: bool


def draw_margins(rng: np.random.Generator, size_wh: tuple[int, int], *, jitter: float, resize: float) -> Margins:
    """Random margins for an image of `size_wh` pixels.

    Each side is moved by U(-1, 1) * int(jitter * length) on its own. `resize` then adds a margin drawn once for left
    and top and once for right and bottom, uniform between the margin that makes the image resize times smaller and
    the one that makes it resize times larger (resize < 1: only smaller). Every step truncates toward zero.
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
    least = int(length * (1 - 1 / down) / 2)
    most = 0 if resize < 1 else int(length * (1 - 1 / up) / 2)
    first, second = np.trunc(moved + least + shared * (most - least))
    return int(first), int(second)


def letterboxed(margins: Margins, size_wh: tuple[int, int], net_wh: tuple[int, int]) -> Margins:
    """Margins widened on two opposite sides until the window of the unmoved image has the network's proportions."""
    width, height = size_wh
    net_ratio = net_wh[0] / net_wh[1]
    if (width / height) / net_ratio > 1:
        extra = (width / net_ratio - height) / 2
        return replace(margins, top=int(margins.top - extra), bottom=int(margins.bottom - extra))
    extra = (height * net_ratio - width) / 2
    return replace(margins, left=int(margins.left - extra), right=int(margins.right - extra))


def window_of(margins: Margins, size_wh: tuple[int, int], *, flip: bool) -> Window:
    """The window that margins leave; the whole image where they leave nothing."""
    width = size_wh[0] - margins.left - margins.right
    height = size_wh[1] - margins.top - margins.bottom
    if min(width, height, size_wh[0] - margins.left, size_wh[1] - margins.top) <= 0:
        return Window(left=0, top=0, width=size_wh[0], height=size_wh[1], flip=flip)
    return Window(left=margins.left, top=margins.top, width=width, height=height, flip=flip)


def cut(image: Image, window: Window, net_wh: tuple[int, int]) -> Image:
    """The window of `image`, resized to `net_wh` (bilinear), mirrored (image_data_augmentation, src/image_opencv.cpp)."""
    height, width = image.shape[:2]
    if (window.left, window.top, window.width, window.height) != (0, 0, width, height):
        image = _window_pixels(image, window)
    sized = as_image(cv2.resize(image, net_wh, interpolation=cv2.INTER_LINEAR))
    return as_image(cv2.flip(sized, 1)) if window.flip else sized


def _window_pixels(image: Image, window: Window) -> Image:
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
    return as_image(cv2.copyMakeBorder(inside, top, bottom, left, right, cv2.BORDER_CONSTANT, value=mean.tolist()))

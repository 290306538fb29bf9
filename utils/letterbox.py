"""From an image to the network's input, pixel for pixel as in the original (src/image.c).

The original's `resize_image` is bilinear with aligned corners: output pixel i samples i * (in - 1) / (out - 1). OpenCV
and PyTorch's default align half-pixel centres instead, which moves edges by up to half a pixel. On five photographs
resized to 320 and 416 pixels the two rules differ by 0.004 to 0.02 of full scale on average (1 to 5 levels of 255) and
by up to 0.38 at sharp edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from utils.boxes import cxcywh_to_xyxy


@dataclass(frozen=True, kw_only=True)
class Letterbox:
    """Geometry of resizing an image to the network's input, stretched or letterboxed.

    Boxes are cxcywh_rel: centre and size relative to the width and height of the image or of the input.
    image_wh, network_wh: width and height in pixels, all positive. letter_box: keep the aspect ratio (letter_box=1 in a cfg).
    """

    image_wh: tuple[int, int]
    network_wh: tuple[int, int]
    letter_box: bool = False

    @property
    def resized_wh(self) -> tuple[int, int]:
        """Size of the resized image inside the network's input, in integer arithmetic (letterbox_image, src/image.c).

        At least 1; at extreme aspect ratios the original gets an empty image.
        """
        (width, height), (net_w, net_h) = self.image_wh, self.network_wh
        if not self.letter_box:
            return self.network_wh
        if np.float32(net_w) / np.float32(width) < np.float32(net_h) / np.float32(height):
            return net_w, max(height * net_w // width, 1)
        return max(width * net_h // height, 1), net_h

    @property
    def offset_xy(self) -> tuple[int, int]:
        """Left and top pixel of the resized image inside the network's input."""
        (net_w, net_h), (inner_w, inner_h) = self.network_wh, self.resized_wh
        return (net_w - inner_w) // 2, (net_h - inner_h) // 2

    def to_image_rel(self, cxcywh_rel: Tensor) -> Tensor:
        """Convert boxes (..., 4) relative to the network's input to boxes (..., 4) relative to the image, not clipped.

        Like correct_yolo_boxes, this halves an odd border to x.5 pixels, while letterbox_image rounds down.
        """
        network, resized = cxcywh_rel.new_tensor(self.network_wh), cxcywh_rel.new_tensor(self.resized_wh)
        ratio, shift = resized / network, (network - resized) / 2 / network
        return torch.cat(((cxcywh_rel[..., :2] - shift) / ratio, cxcywh_rel[..., 2:] / ratio), -1)

    def to_image(self, cxcywh_rel: Tensor) -> Tensor:
        """Convert boxes (..., 4) relative to the network's input to xyxy (..., 4) in pixels of the image, not clipped."""
        return cxcywh_to_xyxy(self.to_image_rel(cxcywh_rel)) * cxcywh_rel.new_tensor(self.image_wh).repeat(2)


KERNELS = ("darknet", "opencv")

GRAY = 0.5  # border colour of letterbox_image


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """A callable that converts images into inputs of one network.

    network_wh: input size in pixels.
    channels: 3 (RGB) or 1 (grayscale).
    letter_box: keep the aspect ratio.
    kernel: see `network_input`.
    centre: use only the centre of the image, as classifiers do (see `centre_crop`).
    """

    network_wh: tuple[int, int]
    channels: int = 3
    letter_box: bool = False
    kernel: str = KERNELS[0]
    centre: bool = False

    def __call__(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], Letterbox]:
        """Convert uint8 (H, W, 3) RGB or gray (H, W, 1) to float32 (channels, height, width) in [0, 1] and its Letterbox."""
        if self.channels == 1 and image.shape[2] == 3:
            image = to_gray(image)
        wh = (image.shape[1], image.shape[0])
        letterbox = Letterbox(image_wh=wh, network_wh=self.network_wh, letter_box=self.letter_box)
        if self.centre:
            return centre_crop(image, self.network_wh, self.kernel), letterbox
        return network_input(image, letterbox, self.kernel), letterbox


def network_input(image: NDArray[np.uint8], letterbox: Letterbox, kernel: str = "darknet") -> NDArray[np.float32]:
    """Convert uint8 (H, W, C) to the network's input, float32 (C, height, width) in [0, 1]. C is 3 (RGB) or 1.

    letterbox: stretch or letterbox the image.
    kernel: "darknet" follows the original exactly; "opencv" uses cv2.resize, as the original does when it is built with
        OpenCV, and rounds to whole levels.
    """
    height, width, channels = image.shape
    assert image.dtype == np.uint8 and (width, height) == letterbox.image_wh, f"{image.shape} is not {letterbox}"
    resize = {"darknet": resize_darknet, "opencv": resize_opencv}[kernel]
    inner_w, inner_h = letterbox.resized_wh
    if letterbox.resized_wh == letterbox.network_wh:
        return resize(image, letterbox.network_wh)
    left, top = letterbox.offset_xy
    boxed = np.full((channels, letterbox.network_wh[1], letterbox.network_wh[0]), GRAY, np.float32)
    boxed[:, top : top + inner_h, left : left + inner_w] = resize(image, letterbox.resized_wh)
    return boxed


def centre_crop(image: NDArray[np.uint8], network_wh: tuple[int, int], kernel: str = "darknet") -> NDArray[np.float32]:
    """Convert the centre of uint8 (H, W, C) to a classifier's input, float32 (C, height, width) in [0, 1].

    The shorter side is resized to the network's width, then the centre is cropped, repeating edge pixels where the input
    is higher (resize_min and crop_image in image.c, called by predict_classifier in classifier.c).
    """
    height, width, _ = image.shape
    shorter = min(width, height)
    size_wh = width * network_wh[0] // shorter, height * network_wh[0] // shorter
    resized = {"darknet": resize_darknet, "opencv": resize_opencv}[kernel](image, size_wh)
    columns, rows = (_middle(length, wanted) for length, wanted in zip(size_wh, network_wh, strict=True))
    return np.ascontiguousarray(resized[:, rows[:, None], columns])


def _middle(length: int, wanted: int) -> NDArray[np.int64]:
    first = int((length - wanted) / 2)  # rounded towards zero, as in C
    return np.clip(np.arange(first, first + wanted), 0, length - 1)


def to_gray(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert uint8 (h, w, 3) RGB to uint8 (h, w, 1), for networks with one channel."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)[..., None]


def resize_opencv(image: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.float32]:
    """Resize uint8 (H, W, C) to float32 (C, h, w) in [0, 1] with cv2.resize, bilinear."""
    resized = np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_LINEAR), np.uint8)
    planes = resized.reshape(size_wh[1], size_wh[0], -1)  # cv2 drops an axis of 1
    return _planes(planes, planes.shape[2]).div_(255).numpy()


_BAND = 128  # rows interpolated at a time, so that they stay in the CPU cache


def resize_darknet(image: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.float32]:
    """Resize uint8 (H, W, C) to float32 (C, h, w) in [0, 1] like resize_image of src/image.c: columns first, then rows."""
    height, width, channels = image.shape
    w, h = size_wh
    if (width, height) == size_wh:
        return _planes(image, channels).div_(255).numpy()
    columns, rows = _taps(width, w), _taps(height, h, last_fades=True)
    low_high = rows.low_high
    if height > 2 * h:  # most rows are not sampled: drop them first
        used, low_high = np.unique(low_high, return_inverse=True)
        image, low_high = image.take(used, axis=0), low_high.reshape(rows.low_high.shape)
    part = torch.empty(channels, len(image), w)
    for top in range(0, len(image), _BAND):
        left, right = _take_columns(image[top : top + _BAND], columns.low_high).chunk(2, dim=2)
        torch.lerp(left, right, torch.from_numpy(columns.weights[1]), out=part[:, top : top + _BAND])
    # The rows of all planes form one table; each output row is the weighted sum of two of its rows, in a single pass.
    of_planes = np.arange(channels)[:, None, None] * len(image) + low_high.T
    resized = torch.nn.functional.embedding_bag(
        torch.from_numpy(of_planes.reshape(-1, 2)),
        part.flatten(0, 1),
        mode="sum",
        per_sample_weights=torch.from_numpy(np.tile(rows.weights.T, (channels, 1))),
    )
    return resized.view(channels, h, w).div_(255).numpy()


class _Taps(NamedTuple):
    """Along one axis: output i is the sum of weights[:, i] * input[low_high[:, i]], both (2, n)."""

    low_high: NDArray[np.int64]
    weights: NDArray[np.float32]


@lru_cache(maxsize=64)
def _taps(size_in: int, size_out: int, *, last_fades: bool = False) -> _Taps:
    """Return the samples of resize_image along one axis, computed in float32 like there to get the same rounding.

    The last output is the last input, though rounding may place it just before. last_fades: reproduce a quirk of
    resize_image, which omits the second addend in the last row and can make it nearly black.
    """
    if size_out == 1 or size_in == 1:
        only = np.full((2, size_out), size_in - 1 if size_out == 1 else 0)
        return _Taps(only, np.repeat(np.array([[1], [0]], np.float32), size_out, axis=1))
    scale = np.float32(size_in - 1) / np.float32(size_out - 1)
    place = np.arange(size_out, dtype=np.float32) * scale
    low = np.minimum(place.astype(np.int64), size_in - 1)
    if not last_fades:
        low[-1] = size_in - 1
    weight = np.maximum(place - low.astype(np.float32), 0)
    weights = np.stack((1 - weight, weight))
    weights[1, -1] = 0
    return _Taps(np.stack((low, np.minimum(low + 1, size_in - 1))), weights)


def _take_columns(image: NDArray[np.uint8], low_high: NDArray[np.int64]) -> Tensor:
    """Return the columns `low`, then `high`, of uint8 (H, W, C) as float32 (C, H, 2 * w), still 0..255.

    Pixels are gathered as 32-bit values, which is several times faster than gathering floats.
    """
    columns, channels = low_high.ravel(), image.shape[2]
    if channels == 1:
        return _planes(image.take(columns, axis=1, mode="clip"), 1)
    words = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA).view(np.uint32)[..., 0]
    taken = words.take(columns, axis=1, mode="clip")
    return _planes(taken.view(np.uint8).reshape(*taken.shape, 4), channels)


def _planes(image: NDArray[np.uint8], channels: int) -> Tensor:
    """Return the first `channels` of uint8 (H, W, C) as float32 (channels, H, W), still 0..255."""
    planes = torch.empty(channels, *image.shape[:2])
    for plane, of_bytes in zip(planes, cv2.split(image), strict=False):
        plane.copy_(torch.from_numpy(of_bytes))
    return planes

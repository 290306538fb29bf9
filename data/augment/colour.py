"""Hue, saturation, exposure, blur and noise (image_data_augmentation in the original's src/image_opencv.cpp)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data.augment.base import coin, scale, uniform, with_channels
from data.augment.geometry import BoxRows
from data.image import Image
from utils.net_options import AugmentOptions

_BACKGROUND_KERNEL = 17
_LEVELS = np.arange(256, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """Hue shift as a fraction of the colour circle, and factors for saturation and exposure."""

    hue: float
    saturation: float
    exposure: float


def draw_distortion(rng: np.random.Generator, options: AugmentOptions) -> Distortion:
    """Draw hue ~ U(-hue, hue), saturation and exposure by `scale`; 0 means unchanged (load_thread, src/data.c)."""
    return Distortion(
        hue=uniform(rng, -options.hue, options.hue),
        saturation=scale(rng, options.saturation or 1.0),
        exposure=scale(rng, options.exposure or 1.0),
    )


def distort(image: Image, distortion: Distortion) -> Image:
    """Change hue, saturation and exposure in 8-bit HSV (hue 0..179); for grey images, only the exposure.

    As in the original, a hue shifted below red is clamped to red, while one shifted beyond 179 wraps around.
    """
    if distortion == Distortion(hue=0.0, saturation=1.0, exposure=1.0):
        return image
    if image.shape[2] < 3:
        return with_channels(cv2.LUT(image, _table(_LEVELS * distortion.exposure)))
    columns = [_LEVELS + 179 * distortion.hue, _LEVELS * distortion.saturation, _LEVELS * distortion.exposure]
    table = np.stack([_table(column) for column in columns], axis=1)[:, None]
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table)
    return with_channels(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def _table(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def draw_blur(rng: np.random.Generator, blur: int) -> int:
    """Draw 0 (no blur), 1 (blur the background) or `blur` (kernel size for the whole image), each with probability 1/3."""
    return (0, 1, blur)[rng.integers(3)] if blur else 0


def limit_blur(blur: int, boxes: BoxRows, net_wh: tuple[int, int]) -> int:
    """Return a smaller kernel if the smallest object is less than eight times its size; 0 without objects.

    A kernel reduced to 1 means a blurred background from then on, as in load_data_detection (src/data.c).
    """
    if blur <= 1:
        return blur
    smallest = int((boxes[:, 2:4] * np.array(net_wh, np.float32)).min()) if len(boxes) else 0
    return min(blur, smallest // 8)


def apply_blur(image: Image, blur: int, boxes: BoxRows) -> Image:
    """Apply Gaussian blur; with `blur` 1 the boxes (n, 5) stay sharp."""
    if not blur:
        return image
    kernel = _BACKGROUND_KERNEL if blur == 1 else blur // 2 * 2 + 1
    soft = with_channels(cv2.GaussianBlur(image, (kernel, kernel), 0))
    if blur == 1 and len(boxes):
        covered = _covered(boxes, image.shape[1], image.shape[0])
        soft[covered] = image[covered]
    return soft


def _covered(boxes: BoxRows, width: int, height: int) -> NDArray[np.bool_]:
    """Return a mask (height, width) of the pixels inside any box, as the 2-D cumulative sum of the boxes' corners."""
    scale = np.array([width, height])
    low = ((boxes[:, :2] - boxes[:, 2:4] / 2) * scale).astype(np.int64)
    high = np.clip(low + (boxes[:, 2:4] * scale).astype(np.int64), 0, scale)
    low = np.clip(low, 0, high)
    corners = np.zeros((height + 1, width + 1), np.int32)
    np.add.at(corners, (low[:, 1], low[:, 0]), 1)
    np.add.at(corners, (high[:, 1], high[:, 0]), 1)
    np.add.at(corners, (low[:, 1], high[:, 0]), -1)
    np.add.at(corners, (high[:, 1], low[:, 0]), -1)
    return corners.cumsum(0).cumsum(1)[:height, :width] > 0


def draw_noise(rng: np.random.Generator, gaussian_noise: int) -> int:
    """Draw the standard deviation of the noise: `gaussian_noise` (at most 127) with probability 1/2, else 0."""
    return min(gaussian_noise, 127) if gaussian_noise and coin(rng) else 0


def add_noise(image: Image, deviation: int, rng: np.random.Generator) -> Image:
    """Add max(0, N(0, deviation)) to every value.

    The original stores its noise in unsigned bytes and loses the negative half: images only become brighter.
    """
    if not deviation:
        return image
    noise = rng.standard_normal(image.shape, dtype=np.float32) * deviation
    return with_channels(cv2.add(image, _table(noise)))

"""Hue, saturation, exposure, blur and noise as in image_data_augmentation of the original's src/image_opencv.cpp."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data.augment import draws
from data.augment.crop import Image, as_image
from data.augment.truth import TruthRows, pair

_BACKGROUND_KERNEL = 17
_LEVELS = np.arange(256, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """Hue shift in parts of the colour circle and factors of saturation and exposure."""

    hue: float
    saturation: float
    exposure: float


def draw_distortion(rng: np.random.Generator, *, hue: float, saturation: float, exposure: float) -> Distortion:
    """hue ~ U(-hue, hue); saturation and exposure as `draws.scale`."""
    return Distortion(
        hue=draws.uniform(rng, -hue, hue),
        saturation=draws.scale(rng, saturation),
        exposure=draws.scale(rng, exposure),
    )


def distort(image: Image, distortion: Distortion) -> Image:
    """Change hue, saturation and exposure in 8-bit HSV (hue 0..179); of grey images only the exposure.

    As in the original a hue moved below red stays red instead of going round; above magenta it does go round.
    """
    if distortion == Distortion(hue=0.0, saturation=1.0, exposure=1.0):
        return image
    if image.shape[2] < 3:
        return as_image(cv2.LUT(image, _table(_LEVELS * distortion.exposure)))
    columns = [_LEVELS + 179 * distortion.hue, _LEVELS * distortion.saturation, _LEVELS * distortion.exposure]
    table = np.stack([_table(column) for column in columns], axis=1)[:, None]
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table)
    return as_image(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def _table(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def draw_blur(rng: np.random.Generator, blur: int) -> int:
    """1/3 each: 0 no blur, 1 blurred background, `blur` all blurred with a kernel of that size; 0 if `blur` is 0."""
    return (0, 1, blur)[rng.integers(3)] if blur else 0


def limited_blur(blur: int, truth: TruthRows, net_wh: tuple[int, int]) -> int:
    """Less blur where the smallest object is less than eight times the kernel; none without objects.

    A kernel that shrinks to 1 means the background kind from then on, as in load_data_detection of src/data.c.
    """
    if blur <= 1:
        return blur
    smallest = int((truth[:, 2:4] * pair(net_wh)).min()) if len(truth) else 0
    return min(blur, smallest // 8)


def blurred(image: Image, blur: int, truth: TruthRows) -> Image:
    """Gaussian blur; `blur` 1 keeps the boxes of `truth` (n, 5; cxcywh_rel, class) sharp."""
    if not blur:
        return image
    kernel = _BACKGROUND_KERNEL if blur == 1 else blur // 2 * 2 + 1
    soft = as_image(cv2.GaussianBlur(image, (kernel, kernel), 0))
    if blur == 1 and len(truth):
        covered = _covered(truth, image.shape[1], image.shape[0])
        soft[covered] = image[covered]
    return soft


def _covered(truth: TruthRows, width: int, height: int) -> NDArray[np.bool_]:
    """(height, width) mask of the pixels under any box, by a summed table of the boxes' corners."""
    scale = np.array([width, height])
    low = ((truth[:, :2] - truth[:, 2:4] / 2) * scale).astype(np.int64)
    high = np.clip(low + (truth[:, 2:4] * scale).astype(np.int64), 0, scale)
    low = np.clip(low, 0, high)
    corners = np.zeros((height + 1, width + 1), np.int32)
    np.add.at(corners, (low[:, 1], low[:, 0]), 1)
    np.add.at(corners, (high[:, 1], high[:, 0]), 1)
    np.add.at(corners, (low[:, 1], high[:, 0]), -1)
    np.add.at(corners, (high[:, 1], low[:, 0]), -1)
    return corners.cumsum(0).cumsum(1)[:height, :width] > 0


def draw_noise(rng: np.random.Generator, gaussian_noise: int) -> int:
    """Standard deviation of the noise: `gaussian_noise` (at most 127) with probability 1/2, else 0."""
    return min(gaussian_noise, 127) if gaussian_noise and draws.coin(rng) else 0


def noisy(image: Image, deviation: int, rng: np.random.Generator) -> Image:
    """Add max(0, N(0, deviation)) to every value.

    The original keeps its noise in unsigned bytes, so the negative half of it is lost: images only become brighter.
    """
    if not deviation:
        return image
    noise = rng.standard_normal(image.shape, dtype=np.float32) * deviation
    return as_image(cv2.add(image, _table(noise)))

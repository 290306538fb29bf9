"""Augmentation of a classifier's training sample (load_data_augment in the original's src/data.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from data.augment.base import DrawSample, Sample, coin, integer, scale, uniform, with_channels
from data.augment.colour import Distortion, draw_distortion
from data.augment.mixing import Mixing, draw_mosaic_cut, mixing_of
from data.image import Image
from utils.net_options import AugmentOptions

_DEFAULT_BLUR_KERNEL = 15


class View(NamedTuple):
    """A random view of an image: rotation by `angle` (radians), scale, translation and aspect ratio."""

    angle: float
    scale: float
    dx: float
    dy: float
    aspect: float


@dataclass(frozen=True, kw_only=True)
class ClassificationAugment:
    """A callable that makes training samples. min_crop, max_crop: keys of [net], limits of the shorter side in pixels."""

    options: AugmentOptions
    min_crop: int
    max_crop: int

    def __call__(self, draw: DrawSample, rng: np.random.Generator, net_wh: tuple[int, int]) -> Sample:
        """Make a sample of size `net_wh`, mixed with probability 1/2 if the options enable it."""
        mixing = mixing_of(self.options)
        sample = self._single(draw, rng, net_wh)
        if mixing is not Mixing.NONE and coin(rng):
            if mixing is Mixing.CUTMIX_OR_MOSAIC:
                mixing = Mixing(integer(rng, Mixing.CUTMIX, Mixing.MOSAIC))
            others = [self._single(draw, rng, net_wh) for _ in range(3 if mixing is Mixing.MOSAIC else 1)]
            mix = {Mixing.MIXUP: _mixup, Mixing.CUTMIX: _cutmix, Mixing.MOSAIC: _mosaic}[mixing]
            sample = mix([sample, *others], rng)
        if self.options.blur and integer(rng, 0, 3) == 0:
            kernel = _DEFAULT_BLUR_KERNEL if self.options.blur == 1 else self.options.blur // 2 * 2 + 1
            sample = sample._replace(image=with_channels(cv2.GaussianBlur(sample.image, (kernel, kernel), 0)))
        return sample

    def _single(self, draw: DrawSample, rng: np.random.Generator, net_wh: tuple[int, int]) -> Sample:
        source = draw(rng)
        view = self.draw_view(rng, source.size_wh, max(net_wh))
        image = render_view(source.image, view, max(net_wh))
        if self.options.flip and coin(rng):
            image = with_channels(cv2.flip(image, 1))
        image = distort_exact(image, draw_distortion(rng, self.options))
        if net_wh != (max(net_wh), max(net_wh)):
            image = with_channels(cv2.resize(image, net_wh, interpolation=cv2.INTER_LINEAR))
        return Sample(image, source.ground_truth)

    def draw_view(self, rng: np.random.Generator, size_wh: tuple[int, int], side: int) -> View:
        """Draw a view of an image of `size_wh` (random_augment_image, src/image.c).

        aspect by `scale`; shorter side a uniform integer from `min_crop` to `max_crop`; angle uniform; translation up to
        half of what the scaled image extends beyond the square of `side` pixels.
        """
        width, height = size_wh
        aspect = scale(rng, self.options.aspect or 1.0)
        zoom = integer(rng, self.min_crop, self.max_crop) / int(min(height, width * aspect))
        angle = float(np.deg2rad(uniform(rng, -self.options.angle, self.options.angle)))
        reach_x = max(0.0, (width * zoom / aspect - side) / 2)
        reach_y = max(0.0, (height * zoom - side) / 2)
        dx, dy = uniform(rng, -reach_x, reach_x), uniform(rng, -reach_y, reach_y)
        return View(angle, zoom, dx, dy, aspect)


def render_view(image: Image, view: View, side: int) -> Image:
    """Render a view as a square of `side` pixels: bilinear, black outside the image (rotate_crop_image)."""
    height, width = image.shape[:2]
    turn = np.array([[np.cos(view.angle), -np.sin(view.angle)], [np.sin(view.angle), np.cos(view.angle)]])
    to_source = turn @ np.diag([view.aspect / view.scale, 1 / view.scale])
    offset = to_source @ (np.array([view.dx, view.dy]) - side / 2) + (width / 2, height / 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return with_channels(cv2.warpAffine(image, np.column_stack([to_source, offset]), (side, side), flags=flags))


def distort_exact(image: Image, distortion: Distortion) -> Image:
    """Change hue (wraps around), saturation and exposure in floating point (distort_image, src/image.c)."""
    if image.shape[2] < 3:
        return with_channels(cv2.convertScaleAbs(image, alpha=distortion.exposure))
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv = hsv * np.array([1, distortion.saturation, distortion.exposure], np.float32)
    hsv[..., 0] = (hsv[..., 0] + 360 * distortion.hue) % 360
    rgb = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    return np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def _mixup(samples: list[Sample], rng: np.random.Generator) -> Sample:
    first, second = samples
    image = with_channels(cv2.addWeighted(first.image, 0.5, second.image, 0.5, 0))
    return Sample(image, (first.ground_truth + second.ground_truth) * np.float32(0.5))


def _cutmix(samples: list[Sample], rng: np.random.Generator) -> Sample:
    """Paste a rectangle of 30 to 80 % of each side from the second image; weight the targets by area."""
    first, second = samples
    height, width = first.image.shape[:2]
    cut_width = integer(rng, int(width * 0.3), int(width * 0.8))
    cut_height = integer(rng, int(height * 0.3), int(height * 0.8))
    left, top = integer(rng, 0, width - cut_width - 1), integer(rng, 0, height - cut_height - 1)
    part = slice(top, top + cut_height), slice(left, left + cut_width)
    image = first.image.copy()
    image[part] = second.image[part]
    share = np.float32(cut_width * cut_height / (width * height))
    return Sample(image, first.ground_truth * (1 - share) + second.ground_truth * share)


def _mosaic(samples: list[Sample], rng: np.random.Generator) -> Sample:
    """Combine four quadrants, each the same part of its own image; weight the targets by area."""
    height, width = samples[0].image.shape[:2]
    cut_x, cut_y = draw_mosaic_cut(rng, (width, height))
    image = samples[0].image.copy()
    target = np.zeros_like(samples[0].ground_truth)
    corners = [
        (rows, columns)
        for rows in (slice(cut_y), slice(cut_y, height))
        for columns in (slice(cut_x), slice(cut_x, width))
    ]
    for sample, part in zip(samples, corners, strict=True):
        image[part] = sample.image[part]
        target += sample.ground_truth * np.float32(image[part].shape[0] * image[part].shape[1] / (width * height))
    return Sample(image, target)

"""Augmentation of a classifier's training sample (load_data_augment in the original's src/data.c)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from data.augment import draws
from data.augment.colour import Distortion, draw_distortion
from data.augment.crop import Image, as_image
from data.augment.mix import Mix, colour_limits, mix_of
from data.augment.mosaic import draw_cut
from utils.net_options import AugmentOptions

_DEFAULT_BLUR_KERNEL = 15


class LabelledImage(NamedTuple):
    """image: uint8 (height, width, channels); target: float32 (classes,), the wanted value of each class."""

    image: Image
    target: NDArray[np.float32]


Pick = Callable[[np.random.Generator], LabelledImage]
"""Gives another random image of the data set, as it is on disk."""


class View(NamedTuple):
    """How random_augment_image looks at an image: turned by `angle` (radians), enlarged, moved, stretched."""

    angle: float
    scale: float
    dx: float
    dy: float
    aspect: float


@dataclass(frozen=True, kw_only=True)
class ClassificationAugment:
    """Makes a training sample. least, most: `min_crop` and `max_crop` of [net], the length of the shorter side."""

    options: AugmentOptions
    least: int
    most: int

    def __call__(self, pick: Pick, rng: np.random.Generator, net_wh: tuple[int, int]) -> LabelledImage:
        """A sample of the network's size; every other one is mixed if the options say so."""
        mix = mix_of(self.options)
        sample = self._single(pick, rng, net_wh)
        if mix is not Mix.NONE and draws.coin(rng):
            if mix is Mix.CUTMIX_OR_MOSAIC:
                mix = Mix(draws.whole(rng, Mix.CUTMIX, Mix.MOSAIC))
            others = [self._single(pick, rng, net_wh) for _ in range(3 if mix is Mix.MOSAIC else 1)]
            sample = {Mix.MIXUP: _blended, Mix.CUTMIX: _cutmixed, Mix.MOSAIC: _mosaic}[mix]([sample, *others], rng)
        if self.options.blur and draws.whole(rng, 0, 3) == 0:
            kernel = _DEFAULT_BLUR_KERNEL if self.options.blur == 1 else self.options.blur // 2 * 2 + 1
            sample = sample._replace(image=as_image(cv2.GaussianBlur(sample.image, (kernel, kernel), 0)))
        return sample

    def _single(self, pick: Pick, rng: np.random.Generator, net_wh: tuple[int, int]) -> LabelledImage:
        source = pick(rng)
        size_wh = source.image.shape[1], source.image.shape[0]
        view = self.draw_view(rng, size_wh, max(net_wh))
        image = viewed(source.image, view, max(net_wh))
        if self.options.flip and draws.coin(rng):
            image = as_image(cv2.flip(image, 1))
        hue, saturation, exposure = colour_limits(self.options)
        image = distort(image, draw_distortion(rng, hue=hue, saturation=saturation, exposure=exposure))
        if net_wh != (max(net_wh), max(net_wh)):
            image = as_image(cv2.resize(image, net_wh, interpolation=cv2.INTER_LINEAR))
        return LabelledImage(image, source.target)

    def draw_view(self, rng: np.random.Generator, size_wh: tuple[int, int], side: int) -> View:
        """random_augment_image in src/image.c.

        aspect as `draws.scale`; shorter side uniform on the whole numbers from `least` to `most`; angle uniform; moved
        by up to half of what the enlarged image has beyond the square of `side` pixels.
        """
        width, height = size_wh
        aspect = draws.scale(rng, self.options.aspect or 1.0)
        scale = draws.whole(rng, self.least, self.most) / int(min(height, width * aspect))
        angle = float(np.deg2rad(draws.uniform(rng, -self.options.angle, self.options.angle)))
        reach_x = max(0.0, (width * scale / aspect - side) / 2)
        reach_y = max(0.0, (height * scale - side) / 2)
        dx, dy = draws.uniform(rng, -reach_x, reach_x), draws.uniform(rng, -reach_y, reach_y)
        return View(angle, scale, dx, dy, aspect)


def viewed(image: Image, view: View, side: int) -> Image:
    """The square of `side` pixels that a view shows, bilinear, black outside the image (rotate_crop_image)."""
    height, width = image.shape[:2]
    turn = np.array([[np.cos(view.angle), -np.sin(view.angle)], [np.sin(view.angle), np.cos(view.angle)]])
    to_source = turn @ np.diag([view.aspect / view.scale, 1 / view.scale])
    offset = to_source @ (np.array([view.dx, view.dy]) - side / 2) + (width / 2, height / 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return as_image(cv2.warpAffine(image, np.column_stack([to_source, offset]), (side, side), flags=flags))


def distort(image: Image, distortion: Distortion) -> Image:
    """Hue (round the circle), saturation and exposure in exact arithmetic (distort_image in src/image.c)."""
    if image.shape[2] < 3:
        return as_image(cv2.convertScaleAbs(image, alpha=distortion.exposure))
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv = hsv * np.array([1, distortion.saturation, distortion.exposure], np.float32)
    hsv[..., 0] = (hsv[..., 0] + 360 * distortion.hue) % 360
    rgb = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    return np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def _blended(samples: list[LabelledImage], rng: np.random.Generator) -> LabelledImage:
    first, second = samples
    image = as_image(cv2.addWeighted(first.image, 0.5, second.image, 0.5, 0))
    return LabelledImage(image, (first.target + second.target) * np.float32(0.5))


def _cutmixed(samples: list[LabelledImage], rng: np.random.Generator) -> LabelledImage:
    """A rectangle of 30 to 80 % of each side from the second image; targets by area."""
    first, second = samples
    height, width = first.image.shape[:2]
    cut_width = draws.whole(rng, int(width * 0.3), int(width * 0.8))
    cut_height = draws.whole(rng, int(height * 0.3), int(height * 0.8))
    left, top = draws.whole(rng, 0, width - cut_width - 1), draws.whole(rng, 0, height - cut_height - 1)
    part = slice(top, top + cut_height), slice(left, left + cut_width)
    image = first.image.copy()
    image[part] = second.image[part]
    share = np.float32(cut_width * cut_height / (width * height))
    return LabelledImage(image, first.target * (1 - share) + second.target * share)


def _mosaic(samples: list[LabelledImage], rng: np.random.Generator) -> LabelledImage:
    """Four quadrants, each from the same place of its image; targets by area."""
    height, width = samples[0].image.shape[:2]
    cut_x, cut_y = draw_cut(rng, (width, height))
    image = samples[0].image.copy()
    target = np.zeros_like(samples[0].target)
    corners = [
        (rows, columns)
        for rows in (slice(cut_y), slice(cut_y, height))
        for columns in (slice(cut_x), slice(cut_x, width))
    ]
    for sample, part in zip(samples, corners, strict=True):
        image[part] = sample.image[part]
        target += sample.target * np.float32(image[part].shape[0] * image[part].shape[1] / (width * height))
    return LabelledImage(image, target)


def target_of(path: str, labels: tuple[str, ...], label_smooth_eps: float) -> NDArray[np.float32]:
    """1 - eps for the labels that stand somewhere in the path, eps / (classes - 1) for all others (fill_truth_smooth)."""
    found = np.array([label in path for label in labels])
    other = label_smooth_eps / (len(labels) - 1) if len(labels) > 1 else 0.0
    return np.where(found, 1 - label_smooth_eps, other).astype(np.float32)

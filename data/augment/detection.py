"""The whole augmentation of a detector's training sample (load_data_detection in the original's src/data.c).

The original decides about mixing once for the images of each of its loading threads; here each sample decides on
its own, with the same probability. Blended images are rounded to bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from data.augment import colour, draws
from data.augment.crop import Image, Margins, Window, as_image, cut, draw_margins, letterboxed, window_of
from data.augment.extra import ExtraAugment
from data.augment.mix import Mix, colour_limits, mix_of
from data.augment.mosaic import QUADRANTS, draw_cut, place, placed, to_corner
from data.augment.truth import TruthRows, joined, windowed
from utils.errors import InputError
from utils.net_options import AugmentOptions

logger = logging.getLogger(__name__)


class Sample(NamedTuple):
    """image: uint8 (height, width, channels); truth: float32 (n, 5), cxcywh relative to the image and class id."""

    image: Image
    truth: TruthRows


Pick = Callable[[np.random.Generator], Sample]
"""Gives another random image of the data set, as it is on disk."""


@dataclass(frozen=True, kw_only=True)
class DetectionAugment:
    """Makes a training sample from as many images as it needs.

    options, letter_box: keys of [net]. jitter, resize, most: the keys `jitter`, `resize` and `max` of the last head.
    classes: of that head.
    extra: further augmentations, applied to the finished sample.
    """

    options: AugmentOptions
    letter_box: bool = False
    jitter: float
    resize: float
    classes: int
    most: int
    extra: ExtraAugment | None = None

    def __post_init__(self) -> None:
        if self.mix is Mix.MOSAIC and self.letter_box:
            raise InputError("[net] letter_box=1 and mosaic=1 exclude each other: leave one of them out")
        if self.resize <= 0:
            raise InputError(f"resize={self.resize:g} is out of range, expected a number above 0")

    @property
    def mix(self) -> Mix:
        """cutmix is for classifiers: without effect here, and next to mosaic it leaves the mosaic."""
        mix = mix_of(self.options)
        return {Mix.CUTMIX: Mix.NONE, Mix.CUTMIX_OR_MOSAIC: Mix.MOSAIC}.get(mix, mix)

    def warn(self) -> None:
        """Name the options that have no effect on a detector, as in the original."""
        if mix_of(self.options) is not self.mix:
            logger.warning("[net] cutmix has no effect on a detector, only on a classifier")
        if self.options.angle:
            logger.warning("[net] angle=%g has no effect on a detector, only on a classifier", self.options.angle)

    def __call__(self, pick: Pick, rng: np.random.Generator, net_wh: tuple[int, int]) -> Sample:
        """A sample of the network's size; every other one is mixed if the options say so."""
        mix = self.mix if draws.coin(rng) else Mix.NONE
        maker = {Mix.MIXUP: self._blend, Mix.MOSAIC: self._mosaic}.get(mix, self._single)
        sample = maker(pick, rng, net_wh)
        if self.extra:
            sample = Sample(*self.extra(sample.image, sample.truth, rng))
        return sample

    def _single(self, pick: Pick, rng: np.random.Generator, net_wh: tuple[int, int]) -> Sample:
        source = pick(rng)
        margins, flip = self._draw_margins(source, rng, net_wh)
        window = window_of(margins, _size(source), flip=flip)
        return self._developed(source, window, rng, net_wh)

    def _blend(self, pick: Pick, rng: np.random.Generator, net_wh: tuple[int, int]) -> Sample:
        first, second = self._single(pick, rng, net_wh), self._single(pick, rng, net_wh)
        image = as_image(cv2.addWeighted(first.image, 0.5, second.image, 0.5, 0))
        return Sample(image, joined(first.truth, second.truth, self.most))

    def _mosaic(self, pick: Pick, rng: np.random.Generator, net_wh: tuple[int, int]) -> Sample:
        cut_xy = draw_cut(rng, net_wh)
        mosaic: Image | None = None
        truth = np.zeros((0, 5), np.float32)
        for quadrant in QUADRANTS:
            source = pick(rng)
            margins, flip = self._draw_margins(source, rng, net_wh)
            if draws.coin(rng):
                margins = to_corner(margins, quadrant, flip=flip)
            window = window_of(margins, _size(source), flip=flip)
            margins = _moved_to(margins, window)
            where = place(margins, quadrant, flip=flip, size_wh=_size(source), net_wh=net_wh, cut_xy=cut_xy)
            part = self._developed(source, window, rng, net_wh, where.source)
            if mosaic is None:
                mosaic = np.empty((net_wh[1], net_wh[0], part.image.shape[2]), np.uint8)
            mosaic[where.target] = part.image
            room = self.most - len(truth)
            truth = joined(truth, placed(part.truth[:room], where, bound=self.options.mosaic_bound), self.most)
        assert mosaic is not None
        return Sample(mosaic, truth)

    def _draw_margins(self, source: Sample, rng: np.random.Generator, net_wh: tuple[int, int]) -> tuple[Margins, bool]:
        margins = draw_margins(rng, _size(source), jitter=self.jitter, resize=self.resize)
        flip = self.options.flip and draws.coin(rng)
        if self.letter_box:
            margins = letterboxed(margins, _size(source), net_wh)
        return margins, flip

    def _developed(
        self,
        source: Sample,
        window: Window,
        rng: np.random.Generator,
        net_wh: tuple[int, int],
        part: tuple[slice, slice] | None = None,
    ) -> Sample:
        """The window at the network's size in new colours; of the image only `part` (rows, columns) if it is given."""
        hue, saturation, exposure = colour_limits(self.options)
        distortion = colour.draw_distortion(rng, hue=hue, saturation=saturation, exposure=exposure)
        blur = colour.draw_blur(rng, self.options.blur)
        noise = colour.draw_noise(rng, int(self.options.gaussian_noise))
        truth = windowed(source.truth, window, _size(source), net_wh, classes=self.classes, most=self.most, rng=rng)
        blur = colour.limited_blur(blur, truth, net_wh)
        image = cut(source.image, window, net_wh)
        if part and not blur:  # colours go pixel by pixel: only those that will be seen
            image = np.ascontiguousarray(image[part])
        image = colour.blurred(colour.distort(image, distortion), blur, truth)
        if part and blur:
            image = image[part]
        return Sample(colour.noisy(image, noise, rng), truth)


def _size(sample: Sample) -> tuple[int, int]:
    return sample.image.shape[1], sample.image.shape[0]


def _moved_to(margins: Margins, window: Window) -> Margins:
    """The margins with the corner that the window really has (it is reset where margins leave nothing)."""
    return Margins(left=window.left, right=margins.right, top=window.top, bottom=margins.bottom)

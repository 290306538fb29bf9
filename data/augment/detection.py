"""Augmentation of a detector's training sample (load_data_detection in the original's src/data.c).

The original decides whether to mix once per loading thread, this class once per sample, with the same probability.
Blended images are rounded to bytes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import cv2
import numpy as np

from data.augment.albumentations import AlbumentationsAugment
from data.augment.base import DrawSample, Sample, coin, with_channels
from data.augment.colour import add_noise, apply_blur, distort, draw_blur, draw_distortion, draw_noise, limit_blur
from data.augment.geometry import (
    CropWindow,
    Margins,
    crop_and_resize,
    crop_boxes,
    crop_window,
    draw_margins,
    letterbox_margins,
    random_symmetry,
)
from data.augment.mixing import (
    QUADRANTS,
    Mixing,
    draw_mosaic_cut,
    margins_to_corner,
    mixing_of,
    mosaic_boxes,
    quadrant_placement,
)
from data.image import Image
from utils.errors import InputError
from utils.net_options import AugmentOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DetectionAugment:
    """A callable that makes training samples from as many images as it needs.

    options, letter_box: keys of [net].
    jitter, resize, classes, max_boxes: keys of the last head (`max_boxes` is `max`).
    dihedral: mirror and transpose finished samples.
    albumentations: further transforms of finished samples.
    """

    options: AugmentOptions
    letter_box: bool = False
    jitter: float
    resize: float
    classes: int
    max_boxes: int
    dihedral: bool = False
    albumentations: AlbumentationsAugment | None = None

    def __post_init__(self) -> None:
        if self.mixing is Mixing.MOSAIC and self.letter_box:
            raise InputError("[net] letter_box=1 and mosaic=1 cannot be combined: remove one of them")
        if self.resize <= 0:
            raise InputError(f"resize={self.resize:g} is out of range, expected a number above 0")

    @property
    def mixing(self) -> Mixing:
        """The kind of mixing for a detector; cutmix is for classifiers only."""
        mixing = mixing_of(self.options)
        return {Mixing.CUTMIX: Mixing.NONE, Mixing.CUTMIX_OR_MOSAIC: Mixing.MOSAIC}.get(mixing, mixing)

    def warn(self) -> None:
        """Warn about options that have no effect on a detector, as in the original."""
        if mixing_of(self.options) is not self.mixing:
            logger.warning("[net] cutmix has no effect on a detector, only on a classifier")
        if self.options.angle:
            logger.warning("[net] angle=%g has no effect on a detector, only on a classifier", self.options.angle)

    def __call__(self, draw: DrawSample, rng: np.random.Generator, net_wh: tuple[int, int]) -> Sample:
        """Make a sample of size `net_wh`, mixed with probability 1/2 if the options enable it."""
        mixing = self.mixing if coin(rng) else Mixing.NONE
        make = {Mixing.MIXUP: self._mixup, Mixing.MOSAIC: self._mosaic}.get(mixing, self._single)
        sample = make(draw, rng, net_wh)
        if self.dihedral:
            sample = Sample(*random_symmetry(*sample, rng))
        return self.albumentations(sample, rng) if self.albumentations else sample

    def _single(self, draw: DrawSample, rng: np.random.Generator, net_wh: tuple[int, int]) -> Sample:
        source = draw(rng)
        margins, flip = self._draw_margins(source, rng, net_wh)
        window = crop_window(margins, source.size_wh, flip=flip)
        return self._render(source, window, rng, net_wh)

    def _mixup(self, draw: DrawSample, rng: np.random.Generator, net_wh: tuple[int, int]) -> Sample:
        first, second = self._single(draw, rng, net_wh), self._single(draw, rng, net_wh)
        image = with_channels(cv2.addWeighted(first.image, 0.5, second.image, 0.5, 0))
        return Sample(image, np.concatenate([first.ground_truth, second.ground_truth])[: self.max_boxes])

    def _mosaic(self, draw: DrawSample, rng: np.random.Generator, net_wh: tuple[int, int]) -> Sample:
        cut_xy = draw_mosaic_cut(rng, net_wh)
        mosaic: Image | None = None
        boxes = np.zeros((0, 5), np.float32)
        for quadrant in QUADRANTS:
            source = draw(rng)
            margins, flip = self._draw_margins(source, rng, net_wh)
            if coin(rng):
                margins = margins_to_corner(margins, quadrant, flip=flip)
            window = crop_window(margins, source.size_wh, flip=flip)
            margins = replace(margins, left=window.left, top=window.top)  # `crop_window` may have reset them
            where = quadrant_placement(
                margins, quadrant, flip=flip, size_wh=source.size_wh, net_wh=net_wh, cut_xy=cut_xy
            )
            part = self._render(source, window, rng, net_wh, where.source)
            if mosaic is None:
                mosaic = np.empty((net_wh[1], net_wh[0], part.image.shape[2]), np.uint8)
            mosaic[where.target] = part.image
            room = self.max_boxes - len(boxes)
            own = mosaic_boxes(part.ground_truth[:room], where, bound=self.options.mosaic_bound)
            boxes = np.concatenate([boxes, own])
        assert mosaic is not None
        return Sample(mosaic, boxes)

    def _draw_margins(self, source: Sample, rng: np.random.Generator, net_wh: tuple[int, int]) -> tuple[Margins, bool]:
        margins = draw_margins(rng, source.size_wh, jitter=self.jitter, resize=self.resize)
        flip = self.options.flip and coin(rng)
        if self.letter_box:
            margins = letterbox_margins(margins, source.size_wh, net_wh)
        return margins, flip

    def _render(
        self,
        source: Sample,
        window: CropWindow,
        rng: np.random.Generator,
        net_wh: tuple[int, int],
        part: tuple[slice, slice] | None = None,
    ) -> Sample:
        """Render the window at the network's size with colour, blur and noise; only its `part` (rows, columns) if given."""
        distortion = draw_distortion(rng, self.options)
        blur = draw_blur(rng, self.options.blur)
        noise = draw_noise(rng, int(self.options.gaussian_noise))
        boxes = crop_boxes(
            source.ground_truth, window, source.size_wh, net_wh, classes=self.classes, max_boxes=self.max_boxes, rng=rng
        )
        blur = limit_blur(blur, boxes, net_wh)
        image = crop_and_resize(source.image, window, net_wh)
        if part and not blur:  # colour changes are per pixel: skip invisible ones
            image = np.ascontiguousarray(image[part])
        image = apply_blur(distort(image, distortion), blur, boxes)
        if part and blur:
            image = image[part]
        return Sample(add_noise(image, noise, rng), boxes)

"""Painting one scene: objects from back to front, each with texture, light, shadow and a label."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from data.scenes.background import Image, background, clutter, lit
from data.scenes.shapes import CLASSES, SHAPES
from data.scenes.textures import colour_pair, mixed, texture_weights

_LEAST_SEEN = 0.4
_LEAST_SIDE_PX = 12
_SHIFT = 4


class Scene(NamedTuple):
    """image: uint8 (height, width, 3), RGB. cxcywh_rel: float64 (n, 4), around what is seen of each object.

    class_ids: int64 (n,), index into shapes.NAMES.
    """

    image: Image
    cxcywh_rel: NDArray[np.float64]
    class_ids: NDArray[np.int64]


class _Stamp(NamedTuple):
    """An object ready to be put down: its place in the scene, its coverage (0..255) and its colours.

    area: pixels of the whole object, also of what lies outside. margin: pixels around it, for the shadow.
    """

    rows: slice
    columns: slice
    cover: NDArray[np.uint8]
    colours: Image
    area: int
    margin: int


def paint_scene(rng: np.random.Generator, size_wh: tuple[int, int]) -> Scene:
    """A scene with 1 to 14 objects that cover each other; at least 40 % of each is to be seen."""
    image = background(rng, size_wh)
    owner = np.full(image.shape[:2], -1, np.int16)
    seen: list[int] = []
    areas: list[int] = []
    class_ids: list[int] = []
    for _ in range(1 + int(rng.integers(0, 14))):
        class_id = int(rng.integers(len(CLASSES)))
        stamp = _stamp(rng, size_wh, class_id)
        if stamp is None:
            continue
        solid, below = stamp.cover > 127, owner[stamp.rows, stamp.columns]
        left = np.array(seen, np.int64) - np.bincount(below[solid & (below >= 0)], minlength=len(seen))
        if (left >= _LEAST_SEEN * np.array(areas)).all():
            _put(image, stamp, rng)
            below[solid] = len(areas)
            seen = [*left.tolist(), int(solid.sum())]
            areas.append(stamp.area)
            class_ids.append(class_id)
    boxes = _seen_boxes(owner, len(areas))
    return Scene(_photographed(image, rng), boxes, np.array(class_ids, np.int64))


def _stamp(rng: np.random.Generator, size_wh: tuple[int, int], class_id: int) -> _Stamp | None:
    """An object of random size, place and pose; None where too little of it is inside the scene."""
    texture, shape = CLASSES[class_id]
    radius = 0.5 * min(size_wh) * float(np.exp(rng.uniform(np.log(0.07), np.log(0.45))))
    angle = float(rng.normal(0, 0.35))
    squeeze = np.array([1.0, rng.uniform(0.75, 1.0)])
    shear = np.array([[1.0, rng.uniform(-0.2, 0.2)], [0.0, 1.0]])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = rng.uniform(0, 1, 2) * size_wh
    outlines = [(points * squeeze * radius) @ (turn @ shear).T + centre for points in SHAPES[shape]]
    margin = 2 + int(0.2 * radius)
    low = np.floor(outlines[0].min(axis=0)).astype(int) - margin
    span = np.ceil(outlines[0].max(axis=0)).astype(int) + margin - low
    cover = np.zeros((span[1], span[0]), np.uint8)
    fixed = [np.rint((points - low) * (1 << _SHIFT)).astype(np.int32) for points in outlines]
    cv2.fillPoly(cover, fixed, 255, cv2.LINE_AA, _SHIFT)
    inside_low, inside_high = np.clip(low, 0, size_wh), np.clip(low + span, 0, size_wh)
    part = tuple(slice(a, b) for a, b in zip(inside_low - low, inside_high - low, strict=True))
    area, seen = int((cover > 127).sum()), cover[part[1], part[0]]
    if (seen > 127).sum() < 0.6 * area or min(seen.shape) < _LEAST_SIDE_PX:
        return None
    colours = _coloured(rng, texture, radius, angle, (seen.shape[1], seen.shape[0]))
    columns, rows = (slice(a, b) for a, b in zip(inside_low, inside_high, strict=True))
    return _Stamp(rows, columns, np.ascontiguousarray(seen), colours, area, margin)


def _coloured(rng: np.random.Generator, texture: str, radius: float, angle: float, size_wh: tuple[int, int]) -> Image:
    weights = texture_weights(
        texture,
        size_wh,
        period_px=2 * radius / float(rng.uniform(3.2, 5.0)),
        angle=angle + float(rng.choice([0.0, np.pi / 2, np.pi / 4])),
        phase=rng.uniform(0, 1, 2),
    )
    image = mixed(weights, *colour_pair(rng))
    return lit(image, rng.uniform(0.7, 1.15, (2, 2)))


def _put(image: Image, stamp: _Stamp, rng: np.random.Generator) -> None:
    """Blend the object in, with a soft shadow or a thin dark edge on some."""
    place = image[stamp.rows, stamp.columns]
    reach = stamp.margin // 2
    if rng.integers(2) and min(stamp.cover.shape) > reach:
        shadow = np.zeros_like(stamp.cover)
        shadow[reach:, reach:] = stamp.cover[:-reach, :-reach]
        place[:] = _darkened(place, cv2.blur(shadow, (reach, reach)), 0.5)
    colours = stamp.colours
    if rng.integers(3) == 0:
        inner = cv2.erode(stamp.cover, np.ones((3, 3), np.uint8))
        colours = _darkened(colours, cv2.bitwise_not(inner), 0.8)
    cover = stamp.cover.astype(np.float32) / 255
    place[:] = cv2.blendLinear(colours, np.ascontiguousarray(place), cover, 1 - cover)


def _darkened(image: Image, where: Any, strength: float) -> Image:
    """The image with (height, width) weights 0..255 of black over it."""
    kept = cv2.convertScaleAbs(where, alpha=-strength, beta=255)
    return np.asarray(cv2.multiply(image, cv2.merge([kept] * 3), scale=1 / 255), np.uint8)


def _seen_boxes(owner: NDArray[np.int16], count: int) -> NDArray[np.float64]:
    """Boxes (count, 4), relative, around the pixels that each object still owns."""
    rows, columns = np.nonzero(owner >= 0)
    who = owner[rows, columns].astype(np.int64)
    low, high = np.full((count, 2), np.iinfo(np.int64).max), np.zeros((count, 2), np.int64)
    for axis, positions in enumerate((columns, rows)):
        np.minimum.at(low[:, axis], who, positions)
        np.maximum.at(high[:, axis], who, positions + 1)
    size = np.array([owner.shape[1], owner.shape[0]])
    return np.concatenate([(low + high) / 2 / size, (high - low) / size], axis=1)


def _photographed(image: Image, rng: np.random.Generator) -> Image:
    """What a camera does to a scene: things in front, blur, uneven light, noise."""
    for _ in range(rng.integers(0, 3)):
        clutter(image, rng)
    if rng.integers(3) == 0:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.2))), np.uint8)
    coarse = np.asarray(cv2.resize(rng.uniform(0.8, 1.15, (3, 3)), (24, 24), interpolation=cv2.INTER_CUBIC))
    image = lit(image, coarse)
    noise = rng.integers(0, 256, image.shape, np.uint8)
    return np.asarray(cv2.addWeighted(image, 1.0, noise, float(rng.uniform(0, 0.06)), -3), np.uint8)

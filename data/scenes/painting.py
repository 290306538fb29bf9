"""Rendering of one scene: parts under one light on a surface, with shadows and camera effects."""

from __future__ import annotations

import functools
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from data.scenes.parts import NAMES, PARTS, Map, relief

Vector = NDArray[np.float64]

_LEAST_INSIDE = 0.6  # fraction of a part's area inside the image
_GAP = 0.04  # between two parts, in units
_LEAST_SIDE_PX = 6
_ATTEMPTS = 6  # positions tried for a part

METALS = {
    "steel": (0.80, 0.83, 0.87),
    "chrome": (0.95, 0.98, 1.04),
    "zinc": (0.90, 0.84, 0.66),
    "brass": (0.96, 0.77, 0.43),
    "copper": (0.98, 0.60, 0.45),
    "black": (0.27, 0.28, 0.31),
}
PLASTICS = {
    "red": (0.78, 0.10, 0.08),
    "blue": (0.08, 0.28, 0.72),
    "white": (0.86, 0.86, 0.83),
    "green": (0.08, 0.5, 0.26),
}
SURFACES = {
    "belt": ((0.22, 0.24, 0.27), (0.14, 0.32, 0.29), (0.17, 0.28, 0.43), (0.34, 0.34, 0.35)),
    "steel": ((0.55, 0.57, 0.60), (0.42, 0.44, 0.47)),
    "wood": ((0.66, 0.51, 0.36), (0.44, 0.33, 0.25), (0.79, 0.68, 0.53)),
    "mat": ((0.84, 0.83, 0.80), (0.25, 0.47, 0.51), (0.66, 0.71, 0.76), (0.40, 0.43, 0.53)),
}
"""Colours of each kind of surface, linear in the pixel values; 1 is white."""

_BALL, _TILE = 64, 1024
_BULGE = 0.22  # slope of a flat face at its ends, so that reflections vary across it


class Scene(NamedTuple):
    """A rendered image and its labels.

    image: uint8 (height, width, 3), RGB.
    cxcywh_rel: float64 (n, 4), boxes around the visible area of each part.
    class_ids: int64 (n,), index into parts.NAMES.
    """

    image: NDArray[np.uint8]
    cxcywh_rel: NDArray[np.float64]
    class_ids: NDArray[np.int64]


def paint_scene(rng: np.random.Generator, size_wh: tuple[int, int]) -> Scene:
    """Draw a scene of some parts on a random surface."""
    unit = max(size_wh) * float(np.exp(rng.uniform(np.log(0.26), np.log(0.42))))
    scene = lay_out(rng, size_wh, str(rng.choice(list(SURFACES))), unit, fill=float(rng.uniform(0.3, 1)))
    return scene._replace(image=photographed(scene.image, rng))


def lay_out(rng: np.random.Generator, size_wh: tuple[int, int], surface: str, unit: float, fill: float) -> Scene:
    """Draw parts on a surface, without camera effects.

    unit: pixels of a part of length 1. fill: fraction of the area to use; 1: as many parts as fit.
    """
    around, up = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(48, 62))
    light = np.array([np.cos(around) * np.cos(up), np.sin(around) * np.cos(up), np.sin(up)])
    image = _surface(rng, size_wh, surface)
    taken = np.zeros(image.shape[:2], bool)
    boxes: list[Vector] = []
    class_ids: list[int] = []
    for _ in range(max(1, round(fill * 1.1 * size_wh[0] * size_wh[1] / unit**2))):
        class_id = int(rng.integers(len(NAMES)))
        for _ in range(_ATTEMPTS):
            box = _place(rng, image, taken, NAMES[class_id], unit, light)
            if box is not None:
                boxes.append(box)
                class_ids.append(class_id)
                break
    corners = np.array(boxes, np.float64).reshape(-1, 2, 2) / size_wh
    cxcywh = np.concatenate([corners.mean(axis=1), corners[:, 1] - corners[:, 0]], axis=1)
    return Scene(_to_bytes(image), cxcywh, np.array(class_ids, np.int64))


def _place(
    rng: np.random.Generator, image: Map, taken: NDArray[np.bool_], name: str, unit: float, light: Vector
) -> Vector | None:
    """Draw a part at a random position and angle; return the corners of its visible area, None if there is no room."""
    part, size_wh = PARTS[name], np.array([image.shape[1], image.shape[0]])
    length, angle = part.length * unit * rng.uniform(0.9, 1.1), rng.uniform(0, 2 * np.pi)
    reach = int(0.54 * length + 0.2 * unit) + 2
    centre = rng.uniform(0, 1, 2) * size_wh
    corner = np.floor(centre).astype(int) - reach
    low, high = np.maximum(corner, 0), np.minimum(corner + 2 * reach, size_wh)
    place = slice(low[1], high[1]), slice(low[0], high[0])
    inside = slice(low[1] - corner[1], high[1] - corner[1]), slice(low[0] - corner[0], high[0] - corner[0])
    maps = relief(name, length)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    to_patch = turn * (length / len(maps))
    offset = centre - corner - to_patch @ np.full(2, (len(maps) - 1) / 2)
    patch = cv2.warpAffine(maps, np.column_stack([to_patch, offset]), (2 * reach, 2 * reach))
    cover = np.ascontiguousarray(patch[..., 3])
    solid = cover[inside] > 0.5
    gap = np.ones((2 * int(_GAP * unit) + 1,) * 2, np.uint8)
    x, y, width, height = cv2.boundingRect(solid.astype(np.uint8))
    if min(width, height) < _LEAST_SIDE_PX or solid.sum() < _LEAST_INSIDE * (cover > 0.5).sum():
        return None
    if (taken[place] & (cv2.dilate(cover, gap)[inside] > 0.5)).any():
        return None
    taken[place] |= solid
    colours = _shaded(rng, patch, turn, light, str(rng.choice(part.materials)))
    background = image[place] * _shadow(cover, light, unit)[inside][..., None]
    image[place] = background + cover[inside][..., None] * (colours[inside] - background)
    return np.array([[x, y], [x + width, y + height]], np.float64) + low


def _shadow(cover: Map, light: Vector, unit: float) -> Map:
    """Return the light left on the surface around a part: dark close to it, soft on the side away from the lamp."""
    shift = -light[:2] * 0.17 * unit
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
    cast = cv2.warpAffine(_blur(cover, 0.03 * unit), matrix, cover.shape[::-1])
    contact = _blur(cover, 0.018 * unit)
    return np.asarray((1 - 0.55 * cast) * (1 - 0.4 * contact), np.float32)


def _shaded(rng: np.random.Generator, patch: Map, turn: Vector, light: Vector, material: str) -> Map:
    """Return the colours of a part, looked up on a ball of the same material where the surface has the same normal."""
    rise = np.linspace(-_BULGE, _BULGE, len(patch), dtype=np.float32)
    normal = patch[..., :2] @ turn.T.astype(np.float32) + np.dstack(np.meshgrid(rise, rise))
    at = (normal * (_BALL / 2 - 1) + (_BALL - 1) / 2).astype(np.float32)
    colours = cv2.remap(_ball(tuple(light), material), at[..., 0], at[..., 1], cv2.INTER_LINEAR)
    grain = _crop(rng, _tile("fine"), patch.shape[:2])
    return np.asarray(colours * (patch[..., 2] * (0.94 + 0.12 * grain))[..., None], np.float32)


@functools.lru_cache(64)
def _ball(light: tuple[float, float, float], material: str) -> Map:
    """Return a ball of a material under the lamp: its colour for every direction that a surface can face."""
    axis = np.linspace(-1, 1, _BALL, dtype=np.float32) * _BALL / (_BALL - 2)
    x, y = np.meshgrid(axis, axis)
    z = np.sqrt(np.maximum(1 - x * x - y * y, 0))
    lean = np.maximum(np.hypot(x, y), 1)
    x, y = x / lean, y / lean
    facing = x * light[0] + y * light[1] + z * light[2]
    mirrored = 2 * z * facing - light[2]  # cosine between the reflected view and the lamp
    if material in PLASTICS:
        glow = 0.36 + 0.62 * np.clip(facing, 0, 1)
        gloss = 0.10 * _step(mirrored, 0.5, 0.95) + 0.5 * _step(mirrored, 0.93, 1.0)
        return (np.array(PLASTICS[material], np.float32) * glow[..., None] + gloss[..., None]).astype(np.float32)
    up = 2 * z * z - 1
    room = 0.24 + 0.22 * _step(up, -0.4, 0.9) + 0.14 * (facing - z * light[2])
    lamp = 0.45 * _step(mirrored, 0.45, 0.97) + 0.7 * _step(mirrored, 0.92, 1.0)
    other = 0.22 * _step(2 * z * (z * light[2] - x * light[0] - y * light[1]) - light[2], 0.75, 1.0)
    return (np.array(METALS[material], np.float32) * (room + lamp + other)[..., None]).astype(np.float32)


def _step(values: Map, low: float, high: float) -> Map:
    """Return 0 below `low`, 1 above `high`, with a smooth transition."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


@functools.cache
def _tile(kind: str) -> Map:
    """Return a large map of noise in 0..1 around 0.5, always the same: grain of materials and surfaces."""
    noise: Map = np.random.default_rng(len(kind)).standard_normal((_TILE, _TILE), dtype=np.float32)
    if kind == "wood":
        rings = _blur(noise, 130, 11)
        noise = 0.7 * np.sin(rings / rings.std() * 4) + 0.5 * _unit(_blur(noise, 25, 0.8)) + 0.25 * noise
    elif kind == "steel":
        noise = _blur(noise, 60, 0.7)
    elif kind == "belt":
        wave = np.sin(np.arange(_TILE) * 2 * np.pi / 7)
        noise = 0.9 * np.outer(wave, wave).astype(np.float32) + 0.6 * noise + 0.8 * _unit(_blur(noise, 45))
    elif kind == "mat":
        noise = 0.5 * noise + _unit(_blur(noise, 1.2)) + _unit(_blur(noise, 60))
    else:
        noise = _blur(noise, 8, 0.6)
    return np.clip(0.5 + 0.2 * _unit(noise), 0, 1)


def _unit(noise: Map) -> Map:
    return np.asarray(noise / noise.std(), np.float32)


def _blur(values: Map, sigma_x: float, sigma_y: float = 0) -> Map:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y), np.float32)


def _crop(rng: np.random.Generator, tile: Map, shape: tuple[int, ...]) -> Map:
    """Crop a tile at a random position; a tile that is too small is extended by its mirror image."""
    tile = np.pad(tile, [(0, max(side - _TILE, 0)) for side in shape[:2]], "symmetric") if max(shape) > _TILE else tile
    top, left = (int(rng.integers(max(_TILE - side, 0) + 1)) for side in shape[:2])
    return tile[top : top + shape[0], left : left + shape[1]]


def _surface(rng: np.random.Generator, size_wh: tuple[int, int], kind: str) -> Map:
    """Draw the surface under the parts."""
    colours = SURFACES[kind]
    colour = np.array(colours[rng.integers(len(colours))]) * rng.uniform(0.85, 1.12) * rng.uniform(0.95, 1.05, 3)
    grain = _crop(rng, _tile(kind), size_wh[::-1])
    strength = {"belt": 0.35, "steel": 0.16, "wood": 0.25, "mat": 0.16}[kind]
    return np.asarray(colour.astype(np.float32) * (1 + strength * (2 * grain - 1))[..., None], np.float32)


def photographed(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Add camera effects: uneven light, darker corners, slight blur, noise, white balance."""
    height, width = image.shape[:2]
    x, y = np.meshgrid(np.linspace(-1, 1, 24), np.linspace(-1, 1, 24))
    tilt = rng.uniform(-0.13, 0.13, 2)
    light = rng.uniform(0.92, 1.12) * (1 + tilt[0] * x + tilt[1] * y - rng.uniform(0.05, 0.16) * (x * x + y * y))
    factors = cv2.resize((light[..., None] * rng.uniform(0.97, 1.03, 3)).astype(np.float32), (width, height))
    lit = _blur(image.astype(np.float32) * factors, rng.uniform(0.3, 0.7))
    noise = rng.integers(0, 256, (height, width, 1), np.uint8) * np.float32(rng.uniform(0.01, 0.04))
    return np.clip(lit + noise - noise.mean(), 0, 255).astype(np.uint8)


def _to_bytes(image: Map) -> NDArray[np.uint8]:
    """Convert colours to levels 0..255, compressing the brightest instead of clipping them."""
    soft = np.where(image > 0.8, 1 - 0.2 * np.exp(-(image - 0.8) / 0.2), image)
    return np.asarray(np.rint(255 * soft), np.uint8)

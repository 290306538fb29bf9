"""The machine parts of drawn scenes: relief maps, computed once, then rotated, scaled and lit for every scene."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Map = NDArray[Any]
"""float32 (height, width), with or without channels."""

SIDE = 320
"""Side of a relief map in pixels; it covers [-1, 1] x [-1, 1]."""
_OVERSAMPLE = 2
_FINE = SIDE * _OVERSAMPLE
_PIXEL = 2 / _FINE
_LEVELS = 4


class Part(NamedTuple):
    """A kind of part.

    draw: function that returns its height map.
    length: largest extent relative to other parts.
    materials: possible materials.
    """

    draw: Callable[[], Map]
    length: float
    materials: tuple[str, ...]


def _grid() -> tuple[Map, Map]:
    """Return x (to the right) and y (down) of every fine pixel."""
    axis = ((np.arange(_FINE) + 0.5) * _PIXEL - 1).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    return x, y


_X, _Y = _grid()


def _disc(radius: float, x: float = 0.0, y: float = 0.0) -> NDArray[np.bool_]:
    return np.asarray(np.hypot(_X - x, _Y - y) < radius)


def _box(left: float, top: float, right: float, bottom: float) -> NDArray[np.bool_]:
    return np.asarray((left < _X) & (right > _X) & (top < _Y) & (bottom > _Y))


def _polygon(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    mask = np.zeros((_FINE, _FINE), np.uint8)
    cv2.fillPoly(mask, [np.rint((points + 1) / _PIXEL * 16).astype(np.int32)], 1, shift=4)
    return mask > 0


def _hexagon(radius: float) -> NDArray[np.bool_]:
    angles = np.arange(6) * np.pi / 3
    return _polygon(radius * np.stack([np.cos(angles), np.sin(angles)], axis=1))


def _smooth(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Round the corners of a mask."""
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), radius / _PIXEL) > 0.5


def _plate(mask: NDArray[np.bool_], height: float, bevel: float) -> Map:
    """Return the height of a flat piece with rounded edges; -1 outside."""
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5) * _PIXEL
    edge = 1 - np.clip(inside / bevel, 0, 1)
    return np.where(mask, height - bevel * (1 - np.sqrt(1 - edge * edge)), -1).astype(np.float32)


def _revolved(radius: Map) -> Map:
    """Return the height of a body of revolution around the x axis, given its radius at every pixel; -1 outside."""
    square = radius * np.abs(radius) - _Y * _Y
    return np.where(square > 0, np.sqrt(np.maximum(square, 0)), -1).astype(np.float32)


def _tube(points: NDArray[np.float64], radius: float) -> Map:
    """Return the height of a round wire along points (n, 3)."""
    height = np.full((_FINE, _FINE), -1, np.float32)
    reach = int(radius / _PIXEL) + 1
    offset = np.arange(-reach, reach + 1) * _PIXEL
    ball = radius**2 - offset[:, None] ** 2 - offset[None] ** 2
    ball = np.where(ball > 0, np.sqrt(np.maximum(ball, 0)), -9).astype(np.float32)
    for x, y, z in points:
        row, column = (int((value + 1) / _PIXEL) - reach for value in (y, x))
        place = height[row : row + len(offset), column : column + len(offset)]
        np.maximum(place, ball + np.float32(z), out=place, where=ball > -9)
    return height


def _thread(radius: float, pitch: float) -> Map:
    """Return the radius of a screw thread: a helix, so the crests are slanted."""
    phase = (_X + 0.35 * pitch * np.clip(_Y / radius, -1, 1)) / pitch
    return (radius * (0.87 + 0.26 * np.abs(phase - np.round(phase)))).astype(np.float32)


def _nut() -> Map:
    corners = np.clip(0.5 - 0.9 * np.maximum(np.hypot(_X, _Y) - 0.8, 0), 0, 1)
    body = np.minimum(_plate(_hexagon(0.96), 0.5, 0.07), corners)
    ramp = 0.5 - 0.8 * np.maximum(0.58 - np.hypot(_X, _Y), 0)
    angle = np.arctan2(_Y, _X) / (2 * np.pi)
    hole = 0.1 + 0.04 * np.cos(2 * np.pi * (np.hypot(_X, _Y) / 0.08 - angle))
    return np.where(_disc(0.47), np.where(_disc(0.36), -1, hole), np.minimum(body, ramp))


def _washer() -> Map:
    return _plate(_disc(0.95) & ~_disc(0.5), 0.12, 0.06)


def _bolt() -> Map:
    shank = np.where(_X > -0.1, _thread(0.2, 0.085), 0.19)
    shank = np.where(_X > 0.9, shank - (_X - 0.9), shank)
    body = np.where((_X > -0.6) & (_X < 0.96), _revolved(shank.astype(np.float32)), -1)
    facets = 0.36 - 0.6 * np.maximum(np.abs(_Y) - 0.19, 0)
    dome = 0.36 - 2.2 * np.maximum(-0.86 - _X + 0.35 * _Y * _Y, 0)
    head = np.where(_box(-0.95, -0.38, -0.6, 0.38) & (dome > 0.1), np.minimum(facets, dome), -1)
    return np.maximum(np.maximum(body, head), _plate(_box(-0.62, -0.42, -0.56, 0.42), 0.3, 0.02))


def _screw() -> Map:
    core = np.clip(0.15 - np.maximum(_X - 0.45, 0) * 0.26, 0, 1)
    pitch = 0.12
    phase = (_X + 0.05 * np.clip(_Y / 0.15, -1, 1)) / pitch
    crest = np.maximum(0, 1 - 3.2 * np.abs(phase - np.round(phase)))
    radius = np.where(_X > -0.35, core * (0.72 + 0.6 * crest), 0.14)
    radius = np.where(_X < -0.62, 0.14 + np.clip(-0.62 - _X, 0, 0.24) * 1.05, radius)
    return np.where((_X > -0.93) & (_X < 0.97), _revolved(radius.astype(np.float32)), -1)


def _gear() -> Map:
    angle, distance = np.arctan2(_Y, _X), np.hypot(_X, _Y)
    teeth = np.clip(1.7 * np.cos(14 * angle), -1, 1)
    mask = _smooth(distance < 0.85 + 0.1 * teeth, 0.01) & (distance > 0.17)
    disc = _plate(mask, 0.26, 0.035)
    recess = _plate((distance > 0.34) & (distance < 0.64), 0.1, 0.05)
    disc = np.where(recess > 0, disc - 0.5 * recess, disc)
    hub = _plate((distance < 0.31) & (distance > 0.17), 0.36, 0.04)
    for turn in np.arange(5) * 0.4 * np.pi:
        disc = np.where(_disc(0.1, 0.49 * np.cos(turn), 0.49 * np.sin(turn)), -1, disc)
    return np.maximum(disc, hub)


def _spring() -> Map:
    turns, wire = 8, 0.062
    t = np.linspace(0, 1, 2600)
    eased = t + 0.035 * np.sin(2 * np.pi * t)
    angle = 2 * np.pi * turns * t
    return _tube(np.stack([1.7 * eased - 0.85, 0.36 * np.cos(angle), 0.3 + 0.24 * np.sin(angle)], axis=1), wire)


def _key() -> Map:
    bow = _smooth(_disc(0.36, -0.56) & ~_disc(0.13, -0.7), 0.01)
    cuts = np.interp(_X[0], [0.0, 0.1, 0.2, 0.27, 0.34, 0.42, 0.5, 0.56, 0.66, 0.74, 0.84, 0.96],
                     [0.17, 0.17, 0.07, 0.07, 0.14, 0.04, 0.04, 0.12, 0.05, 0.13, 0.13, 0.0])  # fmt: skip
    lower, upper = np.where(_X < 0, 0.17, cuts[None]), -0.15 + np.maximum(_X - 0.8, 0)
    blade = (_X > -0.4) & (_X < 0.95) & (lower > _Y) & (upper < _Y)
    body = _plate(_smooth(bow | blade | _box(-0.3, -0.2, -0.1, 0.2), 0.012), 0.13, 0.03)
    groove = _plate(_box(-0.1, -0.08, 0.86, -0.02), 0.03, 0.03)
    rim = _plate(_disc(0.28, -0.56) & ~_disc(0.2, -0.7), 0.03, 0.03)
    return body - np.maximum(groove, 0) - np.maximum(rim, 0)


def _bearing() -> Map:
    distance = np.hypot(_X, _Y)
    outer = _plate((distance < 0.95) & (distance > 0.73), 0.3, 0.05)
    inner = _plate((distance < 0.52) & (distance > 0.32), 0.3, 0.05)
    height = np.maximum(outer, inner)
    height = np.where((height < 0) & (distance > 0.4) & (distance < 0.9), 0.02, height)
    turns = np.arange(9) * 2 * np.pi / 9
    balls = _tube(np.stack([0.625 * np.cos(turns), 0.625 * np.sin(turns), 0 * turns + 0.12], axis=1), 0.125)
    return np.maximum(height, balls)


def _wing_nut() -> Map:
    radius = 0.3 + 0.16 * (_Y + 0.1)
    square = radius * radius - _X * _X
    hub = np.where((square > 0) & (_Y > -0.2) & (_Y < 0.5), np.sqrt(np.maximum(square, 0)), -1)
    wings = np.zeros_like(hub, bool)
    for side in (-1, 1):
        wings |= _disc(0.3, side * 0.64, -0.2)
        wings |= _polygon(np.array([[0.1, 0.05], [0.1, 0.42], [0.36, 0.36], [0.92, -0.1], [0.5, -0.46]]) * (side, 1))
    return np.maximum(hub, _plate(_smooth(wings, 0.03), 0.13, 0.07))


def _wrench() -> Map:
    mask = _box(-0.7, -0.1, 0.7, 0.1) | _disc(0.21, 0.74) | _disc(0.26, -0.7)
    turn = np.deg2rad(15)
    along, across = (_X + 0.7) * np.cos(turn) + _Y * np.sin(turn), _Y * np.cos(turn) - (_X + 0.7) * np.sin(turn)
    mask &= ~((np.abs(across) < 0.125) & (along < 0.06))
    mask &= ~(np.hypot(_X - 0.74, _Y) < 0.115)
    body = _plate(_smooth(mask, 0.02), 0.13, 0.045)
    return body - np.maximum(_plate(_smooth(_box(-0.36, -0.05, 0.46, 0.05), 0.02), 0.04, 0.04), 0)


PARTS: dict[str, Part] = {
    "hex-nut": Part(_nut, 0.62, ("steel", "brass", "black")),
    "washer": Part(_washer, 0.6, ("steel", "brass", "copper")),
    "bolt": Part(_bolt, 1.0, ("steel", "black", "zinc")),
    "screw": Part(_screw, 0.95, ("steel", "brass", "zinc")),
    "gear": Part(_gear, 0.9, ("steel", "brass", "red", "blue", "white", "green")),
    "spring": Part(_spring, 0.95, ("steel", "copper", "black")),
    "key": Part(_key, 0.95, ("brass", "steel")),
    "bearing": Part(_bearing, 0.8, ("steel",)),
    "wing-nut": Part(_wing_nut, 0.75, ("steel", "brass", "zinc")),
    "wrench": Part(_wrench, 1.4, ("steel", "chrome", "black")),
}
NAMES: tuple[str, ...] = tuple(PARTS)
"""The classes, in the order of their ids."""


def relief(name: str, length_px: float) -> Map:
    """Return the map (side, side, 4) of a part for a length in pixels, at most twice as large.

    Channels: surface normal x and y, fraction of light that reaches the surface, and coverage.
    """
    return _reliefs(name)[int(np.clip(np.log2(SIDE / max(length_px, 1)), 0, _LEVELS - 1))]


@functools.cache
def _reliefs(name: str) -> list[Map]:
    """Return the maps of a part, each half as large as the previous one."""
    height = PARTS[name].draw().astype(np.float32)
    cover = (height > -0.5).astype(np.float32)
    ground = cv2.GaussianBlur(np.maximum(height, 0), (0, 0), 2.2)
    dx, dy = (cv2.Sobel(ground, cv2.CV_32F, *order, ksize=3, scale=1 / (8 * _PIXEL)) for order in ((1, 0), (0, 1)))
    length = np.sqrt(1 + dx * dx + dy * dy)
    occluded = np.maximum(cv2.GaussianBlur(np.maximum(height, 0), (0, 0), 0.035 / _PIXEL) - height, 0)
    light = np.exp(-4.5 * occluded)
    fine = cv2.merge([-dx / length, -dy / length, light, cover])
    maps = [np.asarray(cv2.resize(fine, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.float32)]
    for _ in range(_LEVELS - 1):
        half = maps[-1].shape[0] // 2
        maps.append(np.asarray(cv2.resize(maps[-1], (half, half), interpolation=cv2.INTER_AREA), np.float32))
    return maps

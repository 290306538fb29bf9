"""The shapes of drawn scenes, as outlines of polygons in [-1, 1] x [-1, 1], and their classes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Outline = NDArray[np.float64]
"""Corners (n, 2), x to the right and y down."""


def _regular(corners: int, radius: float = 1.0, turn: float = 0.0) -> Outline:
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False) - np.pi / 2 + turn
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _disc() -> list[Outline]:
    return [_regular(48)]


def _square() -> list[Outline]:
    return [np.array([[-0.85, -0.85], [0.85, -0.85], [0.85, 0.85], [-0.85, 0.85]])]


def _triangle() -> list[Outline]:
    return [np.array([[0.0, -1.0], [1.0, 0.85], [-1.0, 0.85]])]


def _star() -> list[Outline]:
    points = np.stack([_regular(5), _regular(5, 0.42, np.pi / 5)], axis=1)
    return [points.reshape(-1, 2)]


def _cross() -> list[Outline]:
    arm = 0.36
    corner = np.array([[-arm, -1.0], [arm, -1.0], [arm, -arm]])
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    turns = [np.linalg.matrix_power(quarter, k) for k in range(4)]
    return [np.concatenate([corner @ turn.T for turn in turns])]


def _heart() -> list[Outline]:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16 - 0.1
    return [np.stack([x, y], axis=1)]


def _ring() -> list[Outline]:
    return [_regular(48), _regular(48, 0.52)]


def _moon() -> list[Outline]:
    outer = np.linspace(0.3 * np.pi, 1.7 * np.pi, 40)
    tip = np.array([np.cos(outer[0]), np.sin(outer[0])])
    radius = float(np.hypot(tip[0] - 0.42, tip[1]))
    bend = np.arctan2(tip[1], tip[0] - 0.42)
    inner = np.linspace(2 * np.pi - bend, bend, 30)
    edge = np.stack([np.cos(outer), np.sin(outer)], axis=1)
    bite = np.stack([0.42 + radius * np.cos(inner), radius * np.sin(inner)], axis=1)
    return [np.concatenate([edge, bite]) + np.array([0.25, 0.0])]


_BUILDERS: dict[str, Callable[[], list[Outline]]] = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "heart": _heart,
    "ring": _ring,
    "moon": _moon,
}
SHAPES: dict[str, list[Outline]] = {name: build() for name, build in _BUILDERS.items()}
"""Outlines by name; where outlines overlap there is a hole."""

TEXTURES = ("plain", "striped", "dotted", "checked")
"""What the inside of a shape looks like; see textures.py."""

CLASSES: tuple[tuple[str, str], ...] = tuple((texture, shape) for shape in SHAPES for texture in TEXTURES)
"""Texture and shape of each class id."""

NAMES: tuple[str, ...] = tuple(f"{texture}-{shape}" for texture, shape in CLASSES)

"""Textures and colours of drawn scenes."""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.uint8]
"""(height, width): how much of the second of two colours a pixel has, 0..255."""

_PERIOD = 32
_PERIODS = 16


@functools.cache
def _tile(texture: str) -> Weights:
    """A square of many periods."""
    period = np.zeros((_PERIOD, _PERIOD), np.uint8)
    half = _PERIOD // 2
    if texture == "striped":
        period[:, :half] = 255
    elif texture == "dotted":
        cv2.circle(period, (half, half), int(0.3 * _PERIOD), 255, -1, cv2.LINE_AA)
    elif texture == "checked":
        period[:half, :half] = period[half:, half:] = 255
    return np.tile(period, (_PERIODS, _PERIODS))


def texture_weights(
    texture: str, size_wh: tuple[int, int], *, period_px: float, angle: float, phase: NDArray[np.float64]
) -> Weights:
    """A patch of `texture` with the given length of a period, turned by `angle` (radians).

    phase: (2,), the place in the period, 0..1, of the middle of the patch. The patch is at most ten periods long.
    """
    scale = _PERIOD / period_px
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    offset = (_PERIODS / 2 + phase) * _PERIOD - turn @ (np.array(size_wh) / 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    patch = cv2.warpAffine(_tile(texture), np.column_stack([turn, offset]), size_wh, flags=flags)
    return np.asarray(patch, np.uint8)


def random_colour(rng: np.random.Generator, *, vivid: bool) -> NDArray[np.float32]:
    """RGB, 0..255: any hue; muted colours are for what is behind the objects."""
    saturation = rng.uniform(0.45, 1.0) if vivid else rng.uniform(0.0, 0.4)
    value = rng.uniform(0.35, 1.0) if vivid else rng.uniform(0.15, 0.95)
    hsv = np.array([[[rng.uniform(0, 360), saturation, value]]], np.float32)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)[0, 0] * 255


def colour_pair(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two colours between which a texture can be seen: the second is the first made much darker or much lighter."""
    first = random_colour(rng, vivid=True)
    darker = first.mean() > 110
    share = rng.uniform(0.55, 0.9)
    other = random_colour(rng, vivid=bool(rng.integers(2))) * (0.3 if darker else 1.0)
    target = other if darker else 255 - 0.25 * (255 - other)
    return first, first * (1 - share) + target * share


def mixed(weights: Weights, first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Image (height, width, 3) of two colours by weight."""
    levels = np.arange(256, dtype=np.float32)[:, None] / 255
    table = np.clip(first + levels * (second - first), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(cv2.merge([weights] * 3), table[:, None]), np.uint8)

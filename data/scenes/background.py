"""What is behind the objects of drawn scenes: gradients, clouds of noise, patterns, and clutter that is no class."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from data.scenes.textures import mixed, random_colour, texture_weights

Image = NDArray[np.uint8]

_COARSE = 96
_UNIT = 127
_SHIFT = 4


def _gradient(rng: np.random.Generator, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Weights that rise along a random direction."""
    return resized(rng.integers(0, 256, (2, 2), np.uint8), size_wh)


def _clouds(rng: np.random.Generator, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Weights of smooth noise: three octaves, added up at a coarse size."""
    coarse = (_COARSE, _COARSE)
    total = np.zeros(coarse, np.float32)
    cells = int(rng.integers(3, 7))
    for octave in range(3):
        noise = rng.random((cells << octave, cells << octave), dtype=np.float32)
        total += cv2.resize(noise, coarse, interpolation=cv2.INTER_CUBIC) / (1 << octave)
    levels = 255 * (total - total.min()) / (total.max() - total.min())
    return resized(levels.astype(np.uint8), size_wh)


def resized(weights: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """A small map of weights at full size, bilinear."""
    return np.asarray(cv2.resize(weights, size_wh, interpolation=cv2.INTER_LINEAR), np.uint8)


def lit(image: Image, light: NDArray[Any]) -> Image:
    """The image in uneven light: factors (rows, columns) below 2, spread over it."""
    size_wh = image.shape[1], image.shape[0]
    factors = resized((light * _UNIT).astype(np.uint8), size_wh)
    return np.asarray(cv2.multiply(image, cv2.merge([factors] * 3), scale=1 / _UNIT), np.uint8)


def _pattern(rng: np.random.Generator, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Weights of a large faint texture, so that a texture alone does not make an object."""
    weights = texture_weights(
        str(rng.choice(["striped", "dotted", "checked"])),
        size_wh,
        period_px=float(rng.uniform(0.1, 0.3)) * max(size_wh),
        angle=float(rng.uniform(0, np.pi)),
        phase=rng.uniform(0, 1, 2),
    )
    return cv2.addWeighted(weights, float(rng.uniform(0.15, 0.5)), _clouds(rng, size_wh), 0.5, 0).astype(np.uint8)


def background(rng: np.random.Generator, size_wh: tuple[int, int]) -> Image:
    """A muted image of random kind with random clutter on it."""
    weights = (_gradient, _clouds, _pattern)[rng.integers(3)](rng, size_wh)
    image = mixed(weights, random_colour(rng, vivid=False), random_colour(rng, vivid=False))
    for _ in range(rng.integers(0, 9)):
        clutter(image, rng)
    return image


def clutter(image: Image, rng: np.random.Generator) -> None:
    """Draw one thing that is no class: a crooked line, or a sliver with four uneven corners."""
    height, width = image.shape[:2]
    colour = random_colour(rng, vivid=bool(rng.integers(2))).tolist()
    if rng.integers(2):
        points = rng.uniform(0, 1, (int(rng.integers(2, 5)), 2)) * (width, height)
        thickness = int(rng.integers(1, 2 + max(width, height) // 90))
        cv2.polylines(image, [_fixed(points)], False, colour, thickness, cv2.LINE_AA, _SHIFT)
        return
    long, thin = rng.uniform(0.1, 0.5) * max(width, height), rng.uniform(0.015, 0.05) * max(width, height)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * rng.uniform(0.5, 1, (4, 2)) * (long / 2, thin / 2)
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = corners @ turn.T + rng.uniform(0, 1, 2) * (width, height)
    cv2.fillPoly(image, [_fixed(points)], colour, cv2.LINE_AA, _SHIFT)


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Points in OpenCV's fixed point numbers of `_SHIFT` bits."""
    return np.rint(points * (1 << _SHIFT)).astype(np.int32)

"""Generated data sets for classifiers: 24 classes of shape x texture x count in folders, and ten of them in CIFAR-10's format.

Each image has one or two equal shapes of any size and angle, filled with stripes, checks or dots, in front of clutter, partly
behind a bar, and with noise. An image depends only on the seed, its side, its class and its number.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data.image import save_image
from utils.files import staged

SHAPES = {"disc": 32, "triangle": 3, "square": 4, "star": 10}
"""Number of corners of each shape."""
TEXTURES = ("striped", "checked", "dotted")
COUNTS = ("one", "two")
CLASSES = tuple("-".join(parts) for parts in product(SHAPES, TEXTURES, COUNTS))
TEN_CLASSES = tuple(name for name in CLASSES if name.endswith("-one"))[:10]
_FINER = 2  # images are drawn larger by this factor
_UNIT = 64  # lengths below are in pixels of an image of this side

Image = NDArray[np.uint8]
Generator = np.random.Generator


def make_shapes(folder: Path, per_class: int, val_per_class: int, side: int = 64, seed: int = 0) -> Path:
    """Draw the data set unless it exists: `per_class` images in each train/<class>/, `val_per_class` in each val/<class>/."""
    if not folder.exists():
        with staged(folder) as unfinished:
            for split, count in (("train", per_class), ("val", val_per_class)):
                for class_id, name in enumerate(CLASSES):
                    (unfinished / split / name).mkdir(parents=True)
                    for number in range(count):
                        rng = np.random.default_rng((seed, side, split == "val", class_id, number))
                        save_image(unfinished / split / name / f"{number:05d}.png", draw(rng, name, side))
    return folder


def make_cifar(folder: Path, per_class: int, val_per_class: int, seed: int = 0) -> Path:
    """Draw TEN_CLASSES in the layout of CIFAR-10's binary version, 32 x 32, unless the folder exists."""
    if not folder.exists():
        with staged(folder) as unfinished:
            unfinished.mkdir()
            for batch, count in (("data_batch_1", per_class), ("test_batch", val_per_class)):
                rows = [
                    bytes([class_id]) + draw(np.random.default_rng(key), name, 32).transpose(2, 0, 1).tobytes()
                    for class_id, name in enumerate(TEN_CLASSES)
                    for key in ((seed, batch == "test_batch", class_id, number) for number in range(count))
                ]
                (unfinished / f"{batch}.bin").write_bytes(b"".join(rows))
            (unfinished / "batches.meta.txt").write_text("\n".join(TEN_CLASSES) + "\n", "utf-8")
    return folder


def draw(rng: Generator, name: str, side: int) -> Image:
    """Draw an image of a class, uint8 (side, side, 3)."""
    shape, texture, count = name.split("-")
    large = side * _FINER
    unit = large / _UNIT
    background, ink, paper = _colours(rng)
    image = np.full((large, large, 3), background)
    for _ in range(rng.integers(0, 3)):  # clutter: lines and plain discs
        colour = rng.uniform(0, 255, 3)
        start, end = rng.integers(0, large, (2, 2)).tolist()
        if rng.random() < 0.5:
            cv2.line(image, start, end, colour.tolist(), round(rng.uniform(1, 2.5) * unit))
        else:
            cv2.circle(image, start, round(rng.uniform(2, 5) * unit), colour.tolist(), -1)
    for mask, centre in _masks(rng, shape, 1 + COUNTS.index(count), large, unit):
        image[mask] = np.where(_pattern(rng, texture, large, unit, centre)[mask, None], ink, paper)
    for _ in range(rng.integers(0, 2)):  # a bar in front
        start, end = rng.integers(0, large, (2, 2)).tolist()
        cv2.line(image, start, end, rng.uniform(0, 255, 3).tolist(), round(rng.uniform(1.5, 3.5) * unit))
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    noise = rng.normal(0, rng.uniform(5, 20), small.shape)
    return np.clip(small + noise, 0, 255).astype(np.uint8)


def _colours(rng: Generator) -> NDArray[np.float64]:
    """Background, ink and paper, float64 (3, 3): grey, dark and light, each with its own tint."""
    grey = np.array([[rng.uniform(90, 160)], [rng.uniform(10, 50)], [rng.uniform(205, 245)]])
    return grey + rng.uniform(-30, 30, (3, 3))


def _masks(
    rng: Generator, shape: str, count: int, large: int, unit: float
) -> list[tuple[NDArray[np.bool_], NDArray[np.float64]]]:
    """Mask and centre of each of `count` shapes, which do not touch."""
    while True:
        radii = rng.uniform(12, 16, count) * unit
        centres = [rng.uniform(radius, large - radius, 2) for radius in radii]
        if count == 1 or float(np.hypot(*(centres[0] - centres[1]))) > radii.sum() + 2 * unit:
            break
    found = []
    for radius, centre in zip(radii, centres, strict=True):
        corners = _outline(shape, rng.uniform(0, 2 * np.pi)) * radius + centre
        canvas = np.zeros((large, large), np.uint8)
        cv2.fillPoly(canvas, [np.rint(corners).astype(np.int32)], 1)
        found.append((canvas.astype(bool), centre))
    return found


def _outline(shape: str, angle: float) -> NDArray[np.float64]:
    """Corners on or in the unit circle, float64 (n, 2)."""
    corners = SHAPES[shape]
    around = 2 * np.pi * np.arange(corners) / corners
    reach = np.where(np.arange(corners) % 2, 0.45, 1.0) if shape == "star" else np.ones(corners)
    points = np.column_stack([np.cos(around), np.sin(around)]) * reach[:, None]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ turn.T


def _pattern(rng: Generator, texture: str, large: int, unit: float, centre: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mask of the texture's first colour, bool (large, large)."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(6, 10) * unit
    y, x = np.mgrid[:large, :large]
    x, y = x - centre[0], y - centre[1]
    u = ((np.cos(angle) * x + np.sin(angle) * y) / period + rng.random()) % 1 - 0.5
    v = ((np.cos(angle) * y - np.sin(angle) * x) / period + rng.random()) % 1 - 0.5
    if texture == "striped":
        return np.asarray(np.abs(u) < 0.25)
    return np.asarray((u < 0) ^ (v < 0) if texture == "checked" else u**2 + v**2 < 0.12)

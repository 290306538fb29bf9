"""A data set of a few small images for training runs of seconds, and a head that fits it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

YOLO = """
[yolo]
mask=0,1
anchors=8,8, 16,16
classes=2
num=2
"""
IMAGES = 6


def write_set(folder: Path, names: Sequence[str], labels: Callable[[int], str], stem: str = "{number}") -> None:
    """Write my.data, my.names, list.txt and IMAGES images of 48 x 40 pixels with label files.

    labels: returns the text of the label file for an image number.
    stem: format of the file stems, from `number` and the `name` of class number % classes.
    """
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        path = folder / stem.format(number=number, name=names[number % len(names)])
        cv2.imwrite(f"{path}.png", rng.integers(0, 255, (40, 48, 3), np.uint8))
        Path(f"{path}.txt").write_text(labels(number))
    (folder / "list.txt").write_text("".join(f"{path.name}\n" for path in sorted(folder.glob("*.png"))))
    (folder / "my.names").write_text("".join(f"{name}\n" for name in names))
    data = f"classes={len(names)}\ntrain=list.txt\nvalid=list.txt\nnames=my.names\n"
    (folder / "my.data").write_text(data)


def two_boxes(number: int, classes: int) -> str:
    """Labels of an image with a large and a small box of consecutive classes."""
    return f"{number % classes} 0.5 0.5 0.4 0.{3 + number}\n{(number + 1) % classes} 0.3 0.3 0.2 0.2\n"

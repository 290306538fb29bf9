"""Pictures of what a network is trained on: `train_batch*.jpg`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utils.compare import save_picture
from utils.draw import class_name
from utils.sheet import MOST_CELLS, Shown, sheet


def batch_sheet(
    images: NDArray[np.uint8], truth: NDArray[np.float32], names: Sequence[str], *, most: int = MOST_CELLS
) -> NDArray[np.uint8]:
    """The first `most` pictures of a batch side by side with their boxes: uint8 (height, width, 3), RGB.

    images: uint8 (b, channels, height, width); truth: float32 (b, max, 5) as the data set gives them.
    """
    return sheet([_shown(image, rows, names) for image, rows in zip(images[:most], truth[:most], strict=True)])


def save_batch(path: str | Path, images: NDArray[np.uint8], truth: NDArray[np.float32], names: Sequence[str]) -> None:
    """Write `batch_sheet` as JPEG. Raises RunError if it cannot be written."""
    save_picture(path, batch_sheet(images, truth, names))


def _shown(image: NDArray[np.uint8], truth: NDArray[np.float32], names: Sequence[str]) -> Shown:
    height, width = image.shape[1:]
    rgb = np.ascontiguousarray(np.broadcast_to(image.transpose(1, 2, 0), (height, width, 3)))
    boxes = truth[truth[:, 2] > 0]
    centre, half = boxes[:, :2], boxes[:, 2:4] / 2
    xyxy = np.concatenate([centre - half, centre + half], axis=1) * np.array([width, height, width, height], np.float32)
    ids = [int(class_id) for class_id in boxes[:, 4]]
    return Shown(rgb, xyxy, ids, [class_name(names, class_id) for class_id in ids])

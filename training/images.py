"""Images of a run for its watcher: what the labels are, and what the network finds in validation images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.image import read_image, save_image
from evaluation.plots import plot_labels
from models.fit import anchor_heads, anchors_in_pixels
from models.plan import Plan
from training.prepare import Sets
from training.validation import EvaluationResult
from utils.draw import MAX_GRID_IMAGES, GridImage, class_name, image_grid
from utils.errors import InputError


def batch_sheet(
    images: NDArray[np.uint8], truth: NDArray[np.float32], names: Sequence[str], *, most: int = MAX_GRID_IMAGES
) -> NDArray[np.uint8]:
    """The first `most` images of a batch side by side with their boxes: uint8 (height, width, 3), RGB.

    images: uint8 (b, channels, height, width); truth: float32 (b, max, 5) as the data set gives them.
    """
    return image_grid([_shown(image, rows, names) for image, rows in zip(images[:most], truth[:most], strict=True)])


def save_batch(path: str | Path, images: NDArray[np.uint8], truth: NDArray[np.float32], names: Sequence[str]) -> None:
    """Write `batch_sheet` as JPEG. Raises RunError if it cannot be written."""
    save_image(path, batch_sheet(images, truth, names))


def _shown(image: NDArray[np.uint8], truth: NDArray[np.float32], names: Sequence[str]) -> GridImage:
    height, width = image.shape[1:]
    rgb = np.ascontiguousarray(np.broadcast_to(image.transpose(1, 2, 0), (height, width, 3)))
    boxes = truth[truth[:, 2] > 0]
    centre, half = boxes[:, :2], boxes[:, 2:4] / 2
    xyxy = np.concatenate([centre - half, centre + half], axis=1) * np.array([width, height, width, height], np.float32)
    ids = [int(class_id) for class_id in boxes[:, 4]]
    return GridImage(rgb, xyxy, ids, [class_name(names, class_id) for class_id in ids])


def save_labels(folder: Path, sets: Sets, plan: Plan) -> None:
    """labels.jpg: classes, box positions and sizes of the training images, and the network's anchors."""
    found = sets.diagnosis
    anchors = None
    if anchor_heads(plan):
        anchors = np.array(anchors_in_pixels(plan)) / [plan.input.width, plan.input.height]
    counts, boxes = found.class_counts, found.cxcywh_rel
    plot_labels(folder / "labels.jpg", found.names, counts, boxes, found.sizes_wh, found.per_image, anchors)


def save_validation(folder: Path, examined: EvaluationResult) -> None:
    """val_batch0_labels.jpg and val_batch0_pred.jpg: the first images of the split with labels, and with what was found.

    Found is what scores above the confidence of precision and recall.
    """
    names = examined.exam.names
    labels, found = list[GridImage](), list[GridImage]()
    for place, index in enumerate(examined.order[:MAX_GRID_IMAGES]):
        try:
            image = read_image(examined.exam.images[index], 3)
        except InputError:
            continue  # gone since it was measured
        truth = examined.truths[place]
        ids = truth.class_ids.tolist()
        labels.append(GridImage(image, truth.xyxy, ids, [class_name(names, i) for i in ids]))
        sure = examined.detections[place]
        sure = sure.select(sure.scores > np.float32(examined.metrics.confusion.conf_thresh)).select(
            slice(None, None, -1)
        )
        texts = [f"{class_name(names, i)} {score:.2f}" for _, score, i in sure]
        found.append(GridImage(image, sure.xyxy, sure.class_ids.tolist(), texts))
    if labels:
        save_image(folder / "val_batch0_labels.jpg", image_grid(labels))
        save_image(folder / "val_batch0_pred.jpg", image_grid(found))

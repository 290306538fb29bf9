"""Pictures of a run for its watcher: what the labels are, and what the network finds in validation pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.image import read_image
from models.fit import anchor_heads, anchors_in_pixels
from models.plan import Plan
from training.evaluation import Examined
from training.prepare import Sets
from utils.compare import save_picture
from utils.draw import class_name
from utils.errors import InputError
from utils.plot_data import plot_labels
from utils.sheet import MOST_CELLS, Shown, sheet


def save_labels(folder: Path, sets: Sets, plan: Plan) -> None:
    """labels.jpg: classes, box positions and sizes of the training pictures, and the network's anchors."""
    found = sets.diagnosis
    anchors = None
    if anchor_heads(plan):
        anchors = np.array(anchors_in_pixels(plan)) / [plan.input.width, plan.input.height]
    counts, boxes = found.class_counts, found.cxcywh_rel
    plot_labels(folder / "labels.jpg", found.names, counts, boxes, found.sizes_wh, found.per_image, anchors)


def save_validation(folder: Path, examined: Examined) -> None:
    """val_batch0_labels.jpg and val_batch0_pred.jpg: the first pictures of the split with labels, and with what was found.

    Found is what scores above the confidence of precision and recall.
    """
    names = examined.exam.names
    labels, found = list[Shown](), list[Shown]()
    for place, index in enumerate(examined.order[:MOST_CELLS]):
        try:
            picture = read_image(examined.exam.images[index], 3)
        except InputError:
            continue  # gone since it was measured
        truth = examined.truths[place]
        ids = truth.class_ids.tolist()
        labels.append(Shown(picture, truth.xyxy, ids, [class_name(names, i) for i in ids]))
        sure = examined.detections[place]
        sure = sure.select(sure.scores > np.float32(examined.metrics.confusion.conf_thresh)).select(
            slice(None, None, -1)
        )
        texts = [f"{class_name(names, i)} {score:.2f}" for _, score, i in sure]
        found.append(Shown(picture, sure.xyxy, sure.class_ids.tolist(), texts))
    if labels:
        save_picture(folder / "val_batch0_labels.jpg", sheet(labels))
        save_picture(folder / "val_batch0_pred.jpg", sheet(found))

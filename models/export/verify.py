"""Compares the outputs of an exported model with those of its network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.export.build import ExportOptions, Outputs, dense_boxes
from models.network import Network
from utils.nms import suppress

TOLERANCE = 1e-4
HALF_TOLERANCE = 5e-2

Arrays = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Expected:
    """An input (n, channels, height, width) and the network's outputs."""

    images: NDArray[np.float32]
    outputs: Arrays


def expected(network: Network, options: ExportOptions, *, seed: int = 0) -> list[Expected]:
    """Run the network on random images at the batch and input size of the exported model (at two of each if dynamic).

    Call this before folding the network, so that folding is verified too.
    """
    shape = network.plan.input
    generator = torch.Generator().manual_seed(seed)
    sizes = [(options.batch or 2, shape.height, shape.width)]
    if options.dynamic_size:
        sizes.append((options.batch or 1, shape.height + 32, shape.width + 64))
    elif options.batch is None:
        sizes.append((1, shape.height, shape.width))
    result = []
    for count, height, width in sizes:
        images = torch.rand(count, shape.channels, height, width, generator=generator)
        with torch.inference_mode():
            outputs = _outputs(network, images, options)
        result.append(Expected(images.numpy(), [each.float().numpy() for each in outputs]))
    return result


def _outputs(network: Network, images: Tensor, options: ExportOptions) -> Sequence[Tensor]:
    outputs = network(images)
    if options.outputs == "raw":
        return tuple(outputs)
    boxes, scores = dense_boxes(network, outputs, (images.shape[3], images.shape[2]))
    return (boxes, scores) if options.outputs == "boxes" else (_suppressed(boxes, scores, options),)


def _suppressed(boxes: Tensor, scores: Tensor, options: ExportOptions) -> Tensor:
    """Rows (image, class, score, box) after NMS. `max_det` is not applied: it might drop different boxes of equal score."""
    rows = []
    for image, (own, chances) in enumerate(zip(boxes, scores, strict=True)):
        kept = suppress(own, torch.where(chances > options.conf, chances, 0.0), options.iou)
        first = torch.stack((torch.full_like(kept.score, image), kept.class_id.float(), kept.score), 1)
        rows.append(torch.cat((first, own[kept.box_index]), 1))
    return torch.cat(rows)


def difference(found: Sequence[NDArray[np.float32]], wanted: Sequence[NDArray[np.float32]], outputs: Outputs) -> float:
    """Largest difference between two values, relative to magnitude plus 1; inf if shapes differ.

    For raw outputs, 1 is replaced by the spread of the tensor if that is smaller: with many classes, all probabilities are small.
    """
    if [each.shape for each in found] != [each.shape for each in wanted]:
        return float("inf")
    return max((_one(*pair, outputs == "raw") for pair in zip(found, wanted, strict=True)), default=0.0)


def _one(found: NDArray[np.float32], wanted: NDArray[np.float32], raw: bool) -> float:
    if not wanted.size:
        return 0.0
    if not np.isfinite(found).all():
        return float("inf")
    mine, theirs = found.astype(np.float64), wanted.astype(np.float64)
    spread = min(1.0, float(theirs.std())) if raw else 1.0
    return float((np.abs(mine - theirs) / (np.abs(theirs) + spread + 1e-12)).max())


def sorted_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sort detections (any, 7) by image, class and descending score."""
    return rows[np.lexsort((-rows[:, 2], rows[:, 1], rows[:, 0]))]

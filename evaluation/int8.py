"""8-bit models: calibration on training images, and quality on the validation set."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from data.annotations import Dataset
from data.batches import batches_of_files
from data.evaluation_set import make_classification_set, make_evaluation_set
from data.sources import open_data
from evaluation.metrics.darknet import SCORE_THRESH
from evaluation.run import measure_accuracy, measure_predictions, predict_images, protocol_nms, require_complete
from inference.backends import OnnxRuntime
from inference.model import model_of
from inference.predictor import Classifier, Model
from models.export.build import ExportOptions
from models.export.int8 import Ranges
from models.export.onnx import observing_bytes
from models.network import Network
from utils.errors import InputError

_CLIPPED = 10_000


@dataclass(frozen=True)
class Int8Data:
    """Data for a quantised model. images: calibration images. validation: data set with the split `val` to measure on."""

    path: str
    images: tuple[Path, ...]
    validation: Dataset

    @classmethod
    def open(cls, path: str | Path, count: int, *, names: str | Path | None = None) -> Int8Data:
        """Open up to `count` training images, evenly spread, and the validation set of a data set.

        Raises InputError if one of them is missing, they share an image, or there are no annotations.
        """
        train = open_data(path, "train", names=names).splits["train"]
        if not train:
            raise InputError(f"{path}: no images in split 'train', expected some to calibrate on")
        validation = open_data(path, "val", names=names)
        images = validation.splits["val"]
        if common := set(train) & set(images):
            raise InputError(
                f"{path}: {len(common)} of {len(images)} validation images are also training images; expected separate splits, "
                "because a model is not measured on the images it was calibrated on"
            )
        if not validation.labelled:
            raise InputError(f"{path}: has no annotations, expected some to measure the 8-bit model on")
        return cls(str(path), spread(train, count), validation)


def spread(images: Sequence[Path], count: int) -> tuple[Path, ...]:
    """Return up to `count` of the images, evenly spread over the list."""
    chosen = min(count, len(images))
    return tuple(images[number * len(images) // chosen] for number in range(chosen))


def calibrate(network: Network, options: ExportOptions, data: Int8Data) -> Ranges:
    """Return the ranges of a folded network's tensors: bounds of the values in a batch, averaged over the batches.

    Raises InputError for a network without a convolution to quantise, and for images that cannot be read.
    """
    model, names = observing_bytes(network, options)
    engine = OnnxRuntime(model, network.plan.cfg.path, torch.device("cpu"))
    size = options.batch or 1
    total, batches = np.zeros((len(names), 2)), 0
    preprocessing = model_of(copy.deepcopy(network), torch.device("cpu")).preprocessing()
    loaded = batches_of_files(data.images, preprocessing, batch_size=size)
    for batch in tqdm(loaded, desc="calibration", unit="batch"):
        for failure in batch.failures:
            raise InputError(f"calibration image {failure.reason}")
        places = np.arange(size) % len(batch.items)  # fill up the last batch by repeating images
        found = engine.run(batch.images.numpy()[places])
        total += [_bounds(torch.from_numpy(values)) for values in found]
        batches += 1
    return {name: (float(low), float(high)) for name, (low, high) in zip(names, total / batches, strict=True)}


def _bounds(values: torch.Tensor) -> tuple[float, float]:
    """Return the bounds exceeded by one value in 10,000; clipping these few leaves finer steps for all others."""
    beyond = max(1, values.numel() // _CLIPPED)
    low, high = (torch.topk(values.flatten(), beyond, largest=largest).values[-1] for largest in (False, True))
    return float(low), float(high)


class Quality(NamedTuple):
    """Quality of a model. metric: "mAP@0.5" or "top-1". value: from 0 to 1."""

    metric: str
    value: float


def quality(model: Model, data: Int8Data) -> Quality:
    """Measure the original's mAP of a detector, or the accuracy of a classifier, on the validation set.

    Raises InputError without labels, RunError for images that cannot be read.
    """
    validation, cfg = data.validation, model.network.plan.cfg.path
    if isinstance(model, Classifier):
        images = make_classification_set(validation, "val", model.classes, cfg)
        predictions = predict_images(model, images.images, interactive=True)
        require_complete(images.images, predictions)
        return Quality("top-1", measure_accuracy(predictions, images).top(1))
    boxes = make_evaluation_set(validation, "val", model.classes, cfg)
    nms = protocol_nms(SCORE_THRESH)
    predictions = predict_images(model, boxes.images, nms, interactive=True)
    require_complete(boxes.images, predictions)
    metrics, _, ground_truth = measure_predictions(predictions, boxes, nms)
    if not any(len(each) for each in ground_truth):
        raise InputError(f"{data.path}: has no labels in split 'val', expected some to measure mAP on")
    return Quality("mAP@0.5", metrics.darknet.mean_average_precision(0))

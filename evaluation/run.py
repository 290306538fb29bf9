"""Evaluation of a model on a data set, for test.py and during training."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from data.batches import batches_of_files
from data.evaluation_set import ClassificationSet, EvaluationSet
from evaluation.metrics.accuracy import Accuracy
from evaluation.metrics.darknet import NMS_THRESH, SCORE_THRESH
from evaluation.metrics.report import Metrics, measure
from evaluation.options import EvaluationOptions
from inference.predictor import Classifier, Model, NmsOptions, RunStatistics
from utils.cli import StopRequest, stop_request
from utils.detections import Detections, GroundTruth
from utils.errors import RunError
from utils.letterbox import KERNELS

VALID_NMS_THRESH = 0.6  # detector.c validate_detector


@dataclass(kw_only=True)
class Predictions:
    """Results for the images that could be read; they can be measured even if incomplete.

    indices: positions of these images in the list, in order.
    sizes_wh: their sizes in pixels.
    found: by NMS settings, a result per image: Detections, or float32 (classes,) of a classifier.
    """

    indices: list[int] = field(default_factory=list)
    sizes_wh: list[tuple[int, int]] = field(default_factory=list)
    found: dict[NmsOptions, list[Any]] = field(default_factory=dict)
    statistics: RunStatistics = field(default_factory=RunStatistics)

    @property
    def unreadable(self) -> dict[str, str]:
        """Path and reason of each image that could not be read."""
        return {failure.path: failure.reason for failure in self.statistics.failures}


class Measured(NamedTuple):
    """Metrics of every protocol, rows of COCO results, and ground truth of the images that could be read, in order."""

    metrics: Metrics
    rows: list[dict[str, Any]]
    ground_truth: list[GroundTruth]


class ProtocolNms(NamedTuple):
    """The NMS settings of the protocols.

    map: of the original's `detector map`, for its mAP.
    valid: of its `detector valid` (detector.c validate_detector), which writes the files for COCO's and Pascal VOC's own
        tools.
    """

    map: NmsOptions
    valid: NmsOptions


def protocol_nms(conf: float, *, iou: float | None = None, single_class: bool = False) -> ProtocolNms:
    """Return the NMS settings for detections from score `conf` on. iou: IoU threshold of both; None: the original's."""
    mapped = NmsOptions(
        conf=conf, iou=NMS_THRESH if iou is None else iou, single_class=single_class, rank_above=SCORE_THRESH
    )
    valid = replace(mapped, iou=VALID_NMS_THRESH if iou is None else iou, rank_above=None, in_pixels=True)
    return ProtocolNms(mapped, valid)


def submitted(predictions: Predictions, valid: NmsOptions) -> list[Detections]:
    """Return the detections as `detector valid` writes them: clipped to the image."""
    return [each.clipped(size_wh) for each, size_wh in zip(predictions.found[valid], predictions.sizes_wh, strict=True)]


def measure_predictions(
    predictions: Predictions, dataset: EvaluationSet, nms: ProtocolNms, **thresholds: float
) -> Measured:
    """Compare the detections with the labels of `dataset`. thresholds: iou_thresh and conf_thresh of `measure`."""
    places = zip(predictions.indices, predictions.sizes_wh, strict=True)
    ground_truth = [dataset.ground_truth(index, size_wh) for index, size_wh in places]
    image_ids = dataset.image_ids(predictions.indices)
    metrics, rows = measure(
        predictions.found[nms.map],
        submitted(predictions, nms.valid),
        ground_truth,
        dataset.names,
        image_ids,
        dataset.category_ids,
        **thresholds,
    )
    return Measured(metrics, rows, ground_truth)


def measure_accuracy(predictions: Predictions, images: ClassificationSet) -> Accuracy:
    """Compare a classifier's predictions with the classes of `images`."""
    (found,) = predictions.found.values()
    probabilities = np.array(found, np.float32).reshape(-1, len(images.names))
    class_ids = images.class_ids[np.array(predictions.indices, np.int64)]
    return Accuracy.of(probabilities, class_ids, images.names, images.top)


def predict_images(
    model: Model,
    images: Sequence[Path],
    nms: Sequence[NmsOptions] = (NmsOptions(),),
    *,
    letter_box: bool | None = None,
    kernel: str = KERNELS[0],
    batch_size: int = 16,
    workers: int = 2,
    augment: bool = False,
    interactive: bool = False,
) -> Predictions:
    """Run the model on every image, with each of the NMS settings; a classifier returns probabilities of leaf classes once.

    interactive: show a progress bar, run an untimed first batch, and on Ctrl-C end early instead of raising.
    """
    nms = nms[:1] if isinstance(model, Classifier) else tuple(dict.fromkeys(nms))
    predictions = Predictions(found={options: [] for options in nms})
    statistics = predictions.statistics
    model.expect(len(images), parallel=True)
    preprocessing = model.preprocessing(letter_box, kernel)
    batches = batches_of_files(images, preprocessing, batch_size=batch_size, workers=workers)
    steps = model.run(batches, nms, statistics, augment=augment, warm_up=interactive, parallel=True)
    bar = tqdm(total=len(images), unit="img", desc="{}x{}".format(*model.size_wh), disable=not interactive)
    with (
        stop_request() if interactive else nullcontext(StopRequest()) as request,
        closing(batches),
        closing(steps),
        bar,
    ):
        for step in steps:
            predictions.indices += step.batch.items
            predictions.sizes_wh += [letterbox.image_wh for letterbox in step.batch.letterboxes]
            for options, found in zip(nms, step.found, strict=True):
                predictions.found[options] += map(model.only_leaves, found) if isinstance(model, Classifier) else found
            bar.update(len(step.batch.items) + len(step.batch.failures))
            if request.made:
                break
    statistics.interrupted = request.made
    return predictions


def nms_of(settings: EvaluationOptions, conf: float) -> ProtocolNms:
    """Return the NMS settings with the flags of test.py."""
    return protocol_nms(conf, iou=settings.iou_thres, single_class=settings.single_cls)


def predict_set(
    settings: EvaluationOptions, model: Model, images: Sequence[Path], nms: Sequence[NmsOptions] = (NmsOptions(),)
) -> Predictions:
    """Call `predict_images` with the flags of test.py."""
    return predict_images(
        model,
        images,
        nms,
        letter_box=None if settings.letter_box is None else bool(settings.letter_box),
        kernel=settings.resize,
        batch_size=settings.batch_size,
        workers=settings.workers,
        augment=settings.augment,
        interactive=True,
    )


def require_complete(images: Sequence[Path], predictions: Predictions) -> None:
    """Raise KeyboardInterrupt if the run was ended early, RunError if images could not be read."""
    if predictions.statistics.interrupted:
        print(f"{len(predictions.indices)} of {len(images)} images were measured", file=sys.stderr)
        raise KeyboardInterrupt
    if failures := predictions.statistics.failures:
        raise RunError(
            f"{len(failures)} of {len(images)} images could not be read, the results cover the others; "
            f"the first: {failures[0].reason}"
        )


def speed_text(model: Model, milliseconds: dict[str, float]) -> str:
    """Return the report line about speed."""
    times = ", ".join(f"{stage} {value:.1f} ms" for stage, value in milliseconds.items())
    width, height = model.size_wh
    return f"Speed: {times} per image of {width}x{height} with {model.engine}"

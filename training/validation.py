"""Evaluation of a network on split `val` during training."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data.batches import batches_of_files
from data.evaluation_set import ClassificationSet, EvaluationSet
from evaluation.metrics.accuracy import Accuracy
from evaluation.metrics.darknet import SCORE_THRESH
from evaluation.metrics.report import Metrics, darknet_text, table
from evaluation.run import Predictions, measure_accuracy, measure_predictions, predict_images, protocol_nms
from inference.model import model_of
from inference.predictor import NmsOptions
from models.batchnorm import BatchNorm
from models.network import Network
from training.history import TrainingHistory
from training.loop import Update
from utils.detections import Detections, GroundTruth
from utils.letterbox import Preprocessing
from utils.processes import Processes

logger = logging.getLogger(__name__)

BOX_METRIC, CLASS_METRIC = "mAP_0.5", "top1"
_EPOCHS, _LEAST = 4, 100  # detector.c train_detector: mAP_epochs, and the minimum number of iterations
_SETTLED = 0.01  # rolling statistics have settled once the initial value contributes at most this fraction


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Evaluation of a detector.

    indices: indices in `dataset.images` of the images that could be read.
    detections, ground_truth: one entry for each of these images.
    """

    metrics: Metrics
    dataset: EvaluationSet
    indices: Sequence[int]
    detections: Sequence[Detections]
    ground_truth: Sequence[GroundTruth]

    @property
    def columns(self) -> dict[str, float]:
        darknet, coco = self.metrics.darknet, self.metrics.coco.statistics
        return {
            BOX_METRIC: darknet.mean_average_precision(),
            "precision": darknet.precision,
            "recall": darknet.recall,
            "F1": darknet.f1,
            "AP": max(coco["AP"], 0.0),
            "AP50": max(coco["AP50"], 0.0),
        }

    def text(self, darknet: bool) -> str:
        metrics = self.metrics
        return darknet_text(metrics.darknet, metrics.names, 0) if darknet else table(metrics)


@dataclass(frozen=True, kw_only=True)
class ClassificationResult:
    """Evaluation of a classifier."""

    accuracy: Accuracy

    @property
    def columns(self) -> dict[str, float]:
        accuracy = self.accuracy
        return {CLASS_METRIC: accuracy.top(1), f"top{accuracy.k}": accuracy.top(accuracy.k)}

    def text(self, darknet: bool) -> str:
        """The result as text; darknet: as classifier.c train_classifier prints it."""
        accuracy = self.accuracy
        return f" accuracy top{accuracy.k} = {accuracy.top(accuracy.k):f} " if darknet else accuracy.table()


Result = EvaluationResult | ClassificationResult


def default_period(images: int, batch: int) -> int:
    """Iterations between evaluations, as in the original. images: number of training images."""
    return max(_EPOCHS * images // batch, _LEAST)


@dataclass(kw_only=True)
class EvaluationHook:
    """Hook: evaluates every `period` iterations, not before `earliest`, and at iteration `last` (detector.c train_detector).

    evaluate: evaluates a network; None: no evaluation.
    metric: the column that decides which weights are best.
    calibrate: returns the network to evaluate, given the one in training and the number of iterations.
    patience: evaluations without improvement until `exhausted`; 0: no limit.
    darknet: report in the original's format.
    on_best, on_best_result: called when a result is the best so far.
    on_done: called after each evaluation.

    best: the best metric so far.
    at: iteration of the latest evaluation.
    without_gain: number of evaluations since the first of the best ones.
    """

    evaluate: Callable[[Network], Result] | None
    metric: str
    calibrate: Callable[[Network, int], Network]
    network: Network
    history: TrainingHistory
    period: int
    earliest: int
    last: int
    patience: int = 0
    darknet: bool = False
    on_best: Callable[[], None] = lambda: None
    on_best_result: Callable[[Result], None] = lambda result: None
    on_done: Callable[[], None] = lambda: None
    best: float = -1.0
    at: int = 0
    without_gain: int = 0

    def state_dict(self) -> dict[str, int]:
        return {"evaluated_at": self.at, "without_gain": self.without_gain}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.at, self.without_gain = int(state["evaluated_at"]), int(state.get("without_gain", 0))

    @property
    def exhausted(self) -> bool:
        return 0 < self.patience <= self.without_gain

    def due(self, iteration: int) -> bool:
        """Whether to evaluate after this iteration."""
        due = max(self.at + self.period, self.earliest)
        return self.evaluate is not None and (iteration >= due or iteration == self.last)

    def __call__(self, update: Update) -> None:
        if self.evaluate is None or not self.due(update.iteration):
            return
        self.at = update.iteration
        result = self.evaluate(self.calibrate(self.network, update.iteration))
        values = result.columns
        logger.info("\niteration %d\n%s", update.iteration, result.text(self.darknet))
        self.history.evaluated(values)
        self.without_gain += 1
        value = values[self.metric]
        if value > self.best or value == self.best == 0:  # `patience` starts with the first object found
            self.without_gain = 0
        if value >= self.best:  # as in the original, the later of two equal results
            self.best = value
            self.on_best()
            self.on_best_result(result)
        if self.exhausted:
            logger.info("no improvement of %s in %d evaluations: stopping", self.metric, self.without_gain)
        self.on_done()


def evaluate_detector(
    network: Network, dataset: EvaluationSet, batch: int, workers: int, device: torch.device
) -> EvaluationResult:
    """Evaluate a detector like test.py, on boxes with a score above SCORE_THRESH."""
    nms = protocol_nms(SCORE_THRESH)
    predictions = _predict(network, dataset.images, batch, workers, device, nms)
    metrics, _, ground_truth = measure_predictions(predictions, dataset, nms)
    return EvaluationResult(
        metrics=metrics,
        dataset=dataset,
        indices=predictions.indices,
        detections=predictions.found[nms.map],
        ground_truth=ground_truth,
    )


def evaluate_classifier(
    network: Network, dataset: ClassificationSet, batch: int, workers: int, device: torch.device
) -> ClassificationResult:
    """Evaluate a classifier as the original does during training (validate_classifier_single)."""
    predictions = _predict(network, dataset.images, batch, workers, device)
    return ClassificationResult(accuracy=measure_accuracy(predictions, dataset))


def _predict(
    network: Network,
    images: Sequence[Path],
    batch: int,
    workers: int,
    device: torch.device,
    nms: Sequence[NmsOptions] = (NmsOptions(),),
) -> Predictions:
    """Predictions of a copy of the network for the images; warns of images that cannot be read."""
    model = model_of(copy.deepcopy(network), device)
    predictions = predict_images(model, images, nms, batch_size=batch, workers=workers)
    if predictions.unreadable:
        logger.warning("%d of %d images of split 'val' cannot be read", len(predictions.unreadable), len(images))
    return predictions


def calibrated(
    network: Network, passes: int, images: Sequence[Path], batch: int, workers: int, device: torch.device
) -> Network:
    """A copy with the batch-norm statistics of `images`, or `network` itself if its own have settled after `passes` passes.

    Rolling statistics start at zero and take hundreds of forward passes to settle (with momentum 0.01); until then, results
    do not show what the network has learnt.
    """
    names = [name for name, each in network.named_modules() if isinstance(each, BatchNorm) and each.training]
    if all((1 - norm.momentum) ** passes < _SETTLED for norm in _norms(network, names)):
        return network
    plan, copied = network.plan, copy.deepcopy(network).eval()
    size_wh, channels = plan.input.size_wh, plan.input.channels
    letter_box, centre = plan.net.letter_box, not plan.box_heads
    preprocess = Preprocessing(network_wh=size_wh, channels=channels, letter_box=letter_box, centre=centre)
    norms = _norms(copied, names)
    for norm in norms:
        norm.train()
        norm.processes = Processes()
    batches = batches_of_files(images, preprocess, batch_size=batch, workers=workers)
    with torch.no_grad():
        for count, loaded in enumerate((each for each in batches if each.items), start=1):
            for norm in norms:
                norm.momentum = 1 / count  # makes the rolling value the mean over all batches so far
                norm.start_batch()
            copied.head_inputs(loaded.images.to(device))
    logger.info("evaluating with batch-norm statistics of %d training images", len(images))
    return copied.eval()


def _norms(network: Network, names: Sequence[str]) -> list[BatchNorm]:
    found = (network.get_submodule(name) for name in names)
    return [norm for norm in found if isinstance(norm, BatchNorm)]

"""Evaluation of a network during its training."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from data.annotations import Dataset
from data.evaluation_set import ClassificationSet, EvaluationSet, make_evaluation_set
from evaluation.measure import measure
from evaluation.metrics.accuracy import Accuracy
from evaluation.metrics.darknet import SCORE_THRESH
from evaluation.metrics.report import Metrics, darknet_text, table
from evaluation.run import predict_images
from inference.model import model_of
from inference.predictor import NmsOptions
from models.network import Network
from training.history import TrainingHistory
from training.loop import Update
from utils.detections import Detections, GroundTruth

logger = logging.getLogger(__name__)

_MAP = "mAP_0.5"
_EPOCHS, _LEAST = 4, 100  # detector.c train_detector: mAP_epochs, and iterations at least


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Result of an evaluation. order: places in `exam.images` of the images that were read; detections, truths: theirs."""

    metrics: Metrics
    exam: EvaluationSet
    order: Sequence[int]
    detections: Sequence[Detections]
    truths: Sequence[GroundTruth]

    @property
    def columns(self) -> dict[str, float]:
        """Metrics for results.csv."""
        darknet, coco = self.metrics.darknet, self.metrics.coco.statistics
        return {
            _MAP: darknet.mean_average_precision(),
            "precision": darknet.precision,
            "recall": darknet.recall,
            "F1": darknet.f1,
            "AP": max(coco["AP"], 0.0),
            "AP50": max(coco["AP50"], 0.0),
        }

    def text(self, darknet: bool) -> str:
        """Text for the console; `darknet`: as the original prints it."""
        metrics = self.metrics
        return darknet_text(metrics.darknet, metrics.names, 0) if darknet else table(metrics)


class Result(Protocol):
    """The outcome of an evaluation."""

    @property
    def columns(self) -> dict[str, float]: ...

    def text(self, darknet: bool) -> str: ...


class Evaluator(Protocol):
    """Evaluates a network. metric: the column that decides which weights are best."""

    @property
    def metric(self) -> str: ...

    def __call__(self, network: Network) -> Result: ...


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Evaluates a network with boxes on split `val` of a data set, by the protocol of the original's `detector map`."""

    data: Dataset
    classes: int
    batch: int
    workers: int
    device: torch.device
    metric: str = _MAP

    def __call__(self, network: Network) -> EvaluationResult:
        plan = network.plan
        exam = make_evaluation_set(self.data, "val", self.classes, plan.cfg.path)
        model, ways = model_of(copy.deepcopy(network), self.device), [NmsOptions(conf=SCORE_THRESH)]
        predictions = predict_images(model, exam.images, ways, batch_size=self.batch, workers=self.workers)
        if predictions.unreadable:
            count = len(predictions.unreadable)
            logger.warning("%d of %d images of split 'val' cannot be read", count, len(exam.images))
        order, (detections,) = predictions.indices, predictions.found
        truths = [exam.ground_truth(index, wh) for index, wh in zip(order, predictions.sizes_wh, strict=True)]
        metrics, _ = measure(detections, truths, exam.names, exam.image_ids(order), exam.category_ids)
        return EvaluationResult(metrics=metrics, exam=exam, order=order, detections=detections, truths=truths)


def default_period(images: int, batch: int) -> int:
    """Iterations between evaluations, as in the original. images: number of training images."""
    return max(_EPOCHS * images // batch, _LEAST)


@dataclass(kw_only=True)
class EvaluationHook:
    """Hook: evaluates every `period` iterations, not before `earliest`, and at iteration `last` (detector.c train_detector).

    patience: evaluations without a better result until `exhausted`; 0: no limit. darknet: report as the original does.
    on_best, on_best_result: called when a result is the best so far; on_done: after each.
    best: the best metric so far. at: iteration of the latest evaluation. without_gain: evaluations since the best one.
    """

    evaluator: Evaluator | None
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
        self.at, self.without_gain = state["evaluated_at"], state.get("without_gain", 0)

    @property
    def exhausted(self) -> bool:
        return 0 < self.patience <= self.without_gain

    def __call__(self, update: Update) -> None:
        due = max(self.at + self.period, self.earliest)
        if self.evaluator is None or (update.iteration < due and update.iteration != self.last):
            return
        self.at = update.iteration
        result = self.evaluator(self.network)
        values, metric = result.columns, self.evaluator.metric
        logger.info("\niteration %d\n%s", update.iteration, result.text(self.darknet))
        self.history.evaluated(values)
        self.without_gain += 1
        if values[metric] >= self.best:
            self.best, self.without_gain = values[metric], 0
            self.on_best()
            self.on_best_result(result)
        if self.exhausted:
            logger.info("no better %s in %d evaluations: stopping", metric, self.without_gain)
        self.on_done()


@dataclass(frozen=True, kw_only=True)
class ClassificationResult:
    """Result of an evaluation."""

    accuracy: Accuracy

    @property
    def columns(self) -> dict[str, float]:
        """Metrics for results.csv."""
        accuracy = self.accuracy
        return {"top1": accuracy.top(1), f"top{accuracy.k}": accuracy.top(accuracy.k)}

    def text(self, darknet: bool) -> str:
        """Text for the console; `darknet`: as the original prints it (classifier.c train_classifier)."""
        accuracy = self.accuracy
        if darknet:
            return f" accuracy top{accuracy.k} = {accuracy.top(accuracy.k):f} "
        return accuracy.table()


@dataclass(frozen=True, kw_only=True)
class ClassificationEvaluation:
    """Evaluates a classifier as the original does during training (validate_classifier_single)."""

    exam: ClassificationSet
    batch: int
    workers: int
    device: torch.device
    metric: str = "top1"

    def __call__(self, network: Network) -> ClassificationResult:
        model = model_of(copy.deepcopy(network), self.device)
        predictions = predict_images(model, self.exam.images, batch_size=self.batch, workers=self.workers)
        if predictions.unreadable:
            count = len(predictions.unreadable)
            logger.warning("%d of %d images of split 'val' cannot be read", count, len(self.exam.images))
        probabilities = np.array(predictions.found[0], np.float32).reshape(-1, model.classes)
        truth = self.exam.classes_of(predictions.indices)
        accuracy = Accuracy.of(probabilities, truth, self.exam.names, self.exam.top)
        return ClassificationResult(accuracy=accuracy)

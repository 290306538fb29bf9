"""Measuring a classifier in the middle of its training."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass

import torch

from data.class_exam import ClassExam
from data.picture_loader import PictureLoader
from engine.classify import ClassPass, classify
from engine.metrics.accuracy import Accuracy
from models.classifier import Classifier
from models.network import Network

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ClassExamined:
    """Result of an evaluation."""

    accuracy: Accuracy

    @property
    def columns(self) -> dict[str, float]:
        """The numbers for results.csv."""
        accuracy = self.accuracy
        return {"top1": accuracy.top(1), f"top{accuracy.k}": accuracy.top(accuracy.k)}

    def text(self, darknet: bool) -> str:
        """Lines for the console; `darknet`: in the original's words (classifier.c train_classifier)."""
        accuracy = self.accuracy
        if darknet:
            return f" accuracy top{accuracy.k} = {accuracy.top(accuracy.k):f} "
        return accuracy.table()


@dataclass(frozen=True, kw_only=True)
class ClassEvaluation:
    """Measures a classifier as the original does during training (validate_classifier_single)."""

    exam: ClassExam
    batch: int
    workers: int
    device: torch.device
    metric: str = "top1"

    def __call__(self, network: Network) -> ClassExamined:
        plan = network.plan
        classifier = Classifier(copy.deepcopy(network).fold(pack=self.device.type == "cpu"), self.device)
        loader = PictureLoader(
            self.exam.images,
            classifier.size_wh,
            channels=plan.input.channels,
            batch_size=self.batch,
            workers=max(1, self.workers),
            centred=True,
        )
        found = ClassPass()
        for _ in classify(classifier.leaf_probabilities, loader, found):
            pass
        if found.failures:
            logger.warning(
                "%d of %d pictures of split 'val' cannot be read", len(found.failures), len(self.exam.images)
            )
        probabilities = found.probabilities(classifier.classes)
        truth = self.exam.classes_of(found.order)
        accuracy = Accuracy.of(probabilities, truth, self.exam.names, self.exam.top)
        return ClassExamined(accuracy=accuracy)

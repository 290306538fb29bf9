"""Measuring a network in the middle of its training."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass

import torch

from data.annotations import Dataset
from data.exam import make_exam
from data.picture_loader import PictureLoader
from engine.evaluate import Pass, evaluate
from engine.measure import measure
from engine.metrics.darknet import SCORE_THRESH
from engine.metrics.report import Metrics
from models.detector import Selection
from models.network import Network
from models.predictor import Predictor

logger = logging.getLogger(__name__)

METRIC = "mAP_0.5"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Measures a network with boxes on split `val` of a data set, by the protocol of the original's `detector map`."""

    data: Dataset
    classes: int
    batch: int
    workers: int
    device: torch.device

    def __call__(self, network: Network) -> Metrics:
        plan = network.plan
        exam = make_exam(self.data, "val", self.classes, plan.cfg.path)
        predictor = Predictor(copy.deepcopy(network).fold(pack=self.device.type == "cpu"), self.device)
        loader = PictureLoader(
            exam.images,
            predictor.size_wh,
            letter_box=plan.net.letter_box,
            channels=plan.input.channels,
            batch_size=self.batch,
            workers=max(1, self.workers),
        )
        found = Pass()
        for _ in evaluate(predictor.forward, [predictor.boxes(Selection(conf=SCORE_THRESH))], loader, found):
            pass
        if found.failures:
            logger.warning("%d of %d pictures of split 'val' cannot be read", len(found.failures), len(exam.images))
        truths = [exam.truth(index, found.sizes_wh[index]) for index in found.order]
        ids = exam.image_ids(found.order)
        return measure(found.detections(0), truths, exam.names, ids, exam.category_ids)[0]


def columns(metrics: Metrics) -> dict[str, float]:
    """The numbers of an evaluation for results.csv."""
    darknet, coco = metrics.darknet, metrics.coco.statistics
    return {
        METRIC: darknet.mean_average_precision(),
        "precision": darknet.precision,
        "recall": darknet.recall,
        "F1": darknet.f1,
        "AP": max(coco["AP"], 0.0),
        "AP50": max(coco["AP50"], 0.0),
    }

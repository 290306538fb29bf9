"""An exported model in the place of a network: its outputs as boxes for the same detector."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.backends import Arrays, Session
from inference.detector import Detector
from inference.predictor import Predictor
from models.heads.base import Candidates
from models.layers.base import Layer
from models.plan import Plan
from utils.errors import InputError

logger = logging.getLogger(__name__)

_DETECTION = 7  # values of a row of outputs="nms": image, class, score, box


class ExportedModel:
    """Called like a network; of its layers it has the heads only, which decode raw outputs.

    size_wh: another input size than the model's own, in pixels. Raises InputError when the model's size is fixed.
    """

    def __init__(self, session: Session, place: str, size_wh: tuple[int, int] | None = None) -> None:
        self.session, self.metadata = session, session.metadata
        own = self.metadata.size_wh
        if size_wh not in (None, own) and not self.metadata.dynamic_size:
            raise InputError(
                f"{place}: its input is {own[0]}x{own[1]}, it cannot run at {size_wh[0]}x{size_wh[1]}; "
                "export it at that size, or with --dynamic size"
            )
        width, height = size_wh or own
        self.plan: Plan = self.metadata.description.plan(place, width=width, height=height)

    def __iter__(self) -> Iterator[Layer]:
        for step in self.plan.steps:
            yield step.section.build(step.site) if step in self.plan.heads else Layer()

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        arrays = np.ascontiguousarray(images.float().cpu().numpy())
        return tuple(torch.from_numpy(each) for each in self._run(arrays))

    def _run(self, images: NDArray[np.float32]) -> Arrays:
        """A model of fixed batch takes the images in parts, the last one filled up."""
        batch = self.metadata.batch
        if batch is None or len(images) == batch:
            return self.session.run(images)
        parts = []
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            missing = np.zeros((batch - len(part), *images.shape[1:]), np.float32)
            parts.append(self._cut(self.session.run(np.concatenate((part, missing))), start, len(part)))
        return [np.concatenate(same) for same in zip(*parts, strict=True)]

    def _cut(self, outputs: Arrays, start: int, count: int) -> Arrays:
        if self.metadata.outputs != "nms":
            return [each[:count] for each in outputs]
        (rows,) = outputs
        rows = rows.reshape(-1, _DETECTION)
        rows = rows[rows[:, 0] < count].copy()
        rows[:, 0] += start
        return [rows]


class ExportedDetector(Detector):
    """Takes the boxes of models that decode them on their own."""

    def __init__(self, model: ExportedModel) -> None:
        super().__init__(model)
        self._outputs = model.metadata.outputs
        self._least = model.metadata.conf or 0.0  # what suppression inside the model has left

    def candidates(self, outputs: Sequence[Tensor], conf: float, size_wh: tuple[int, int]) -> Candidates:
        if self._outputs == "raw":
            return super().candidates(outputs, conf, size_wh)
        if self._outputs == "nms":
            return self._of_rows(outputs[0].reshape(-1, _DETECTION), conf)
        boxes, scores = outputs
        scores = torch.where(scores > conf, scores, 0.0)
        image, place = (scores.amax(2) > 0).nonzero().unbind(1)
        chosen = scores[image, place]
        return Candidates(image, boxes[image, place], chosen, chosen.amax(1) if len(chosen) else chosen.new_zeros(0))

    def _of_rows(self, rows: Tensor, conf: float) -> Candidates:
        if conf < self._least:
            logger.warning("the model holds suppression from a score of %g on: lower ones are missing", self._least)
            self._least = 0.0  # said once
        rows = rows[rows[:, 2] > conf]
        scores = rows.new_zeros(len(rows), self.classes)
        scores[torch.arange(len(rows)), rows[:, 1].long()] = rows[:, 2]
        return Candidates(rows[:, 0].long(), rows[:, 3:], scores, rows[:, 2])


class ExportedPredictor(Predictor):
    """A Predictor whose forward pass an engine runs. mirrored, single: as Predictor's."""

    def __init__(self, model: ExportedModel, *, mirrored: bool = False, single: bool = False) -> None:
        super().__init__(model, torch.device("cpu"), mirrored=mirrored, single=single)
        self.detector = ExportedDetector(model)

"""The course of a run as files: results.csv, chart.png, results.png, and images of what is trained and measured on."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.annotations import Finding
from data.loader import TrainBatch
from models.plan import Plan
from training.charts import write_chart, write_results
from training.history import TrainingHistory
from training.images import save_batch, save_labels, save_validation
from training.loop import Update
from training.prepare import Sets
from training.tensorboard import Board
from training.validation import EvaluationResult, Result
from utils.errors import RunError
from utils.files import write_text

logger = logging.getLogger(__name__)

_PREVIEWS = 3
_PROBLEMS_SHOWN = 5
_CHART_EVERY = 1000


@dataclass(frozen=True, kw_only=True)
class Results:
    """Hook that writes results.csv every `every` iterations and the charts every thousand.

    plots: whether charts and images are wanted. last: the iteration training ends at. top: of the chart's loss axis.
    metric: the column of history that says which network is best. board: for TensorBoard, if it is wanted.
    """

    folder: Path
    history: TrainingHistory
    plots: bool
    last: int
    top: float
    every: int
    metric: str = ""
    board: Board | None = None

    def __call__(self, update: Update) -> None:
        if self.board:
            self.board.write()
        if update.iteration % self.every == 0:
            self.history.write(self.folder / "results.csv")
        if update.iteration % _CHART_EVERY == 0:
            self.write()

    def write(self) -> None:
        """Write everything as it stands."""
        self.history.write(self.folder / "results.csv")
        if self.plots and self.history.rows and has_matplotlib():
            path = self.folder / "chart.png"
            write_chart(self.history, path, max_batches=self.last, max_loss=self.top, metric=self.metric)
            write_results(self.history, self.folder / "results.png")

    def close(self) -> None:
        """The end of the run, good or bad."""
        if self.board:
            self.board.close()

    def labels(self, sets: Sets, plan: Plan) -> None:
        """labels.jpg, where there are boxes."""
        if self.plots and has_matplotlib() and sets.diagnosis.labels:
            save_labels(self.folder, sets, plan)

    def validation(self, examined: Result) -> None:
        """Validation images with their labels, and with what was found in them, where there are boxes."""
        if self.plots and isinstance(examined, EvaluationResult):
            save_validation(self.folder, examined)

    def unusable(self, findings: Mapping[Finding, int]) -> None:
        """Say how many images and labels could not be used; problems.txt has all of them. findings: and how often."""
        if not findings:
            return
        lines = [f"{count} x {finding}" for finding, count in findings.items()]
        for line in lines[:_PROBLEMS_SHOWN]:
            logger.warning("could not be used, %s", line)
        path = self.folder / "problems.txt"
        try:
            write_text(path, "\n".join(lines) + "\n")
        except RunError as error:  # the run's own outcome matters more
            logger.warning("%s", error)
            return
        text = "%d images or labels could not be used and cost %d samples or boxes: %s"
        logger.warning(text, len(lines), sum(findings.values()), path)

    def previewed(self, batches: Iterable[TrainBatch], names: Sequence[str]) -> Iterator[TrainBatch]:
        """The batches; the first ones also as images. names: of the classes."""
        for number, batch in enumerate(batches):
            if number < _PREVIEWS and self.plots and batch.ground_truth.dim() == 3:
                path = self.folder / f"train_batch{number}.jpg"
                save_batch(path, batch.images.numpy(), batch.ground_truth.numpy(), names)
            yield batch


def has_matplotlib() -> bool:
    """Whether charts can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def warn_without_matplotlib() -> None:
    """Say so if charts are wanted that cannot be drawn."""
    if not has_matplotlib():
        logger.warning("no charts: they need matplotlib (pip install matplotlib)")

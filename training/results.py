"""What a training run writes besides weights: results.csv, charts, problems.txt, and images of batches and validation."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.annotations import Finding
from data.image import read_image, save_image
from data.loader import TrainBatch
from evaluation.plots import plot_labels
from models.fit import anchor_heads, anchors_in_pixels
from models.plan import Plan
from training.charts import write_chart, write_results
from training.history import Board, TrainingHistory
from training.loop import Update
from training.prepare import DataSplits
from training.validation import EvaluationResult, Result
from utils.draw import MAX_GRID_IMAGES, GridImage, class_name, image_grid
from utils.errors import InputError, RunError
from utils.files import write_text
from utils.packages import is_installed

logger = logging.getLogger(__name__)

_PREVIEWS = 3
_PROBLEMS_SHOWN = 5
_CHART_PERIOD = 1000


@dataclass(frozen=True, kw_only=True)
class ResultFiles:
    """Hook that writes results.csv every `period` iterations, and the charts every thousand.

    plots: whether to draw charts and images.
    last: the final iteration.
    max_loss: upper end of the chart's loss axis.
    metric: column of the history that decides which weights are best.
    board: writes TensorBoard scalars, if requested.
    """

    folder: Path
    history: TrainingHistory
    plots: bool
    last: int
    max_loss: float
    period: int
    metric: str = ""
    board: Board | None = None

    def __call__(self, update: Update) -> None:
        if self.board:
            self.board.write()
        if update.iteration % self.period == 0:
            self.history.write(self.folder / "results.csv")
        if update.iteration % _CHART_PERIOD == 0:
            self.write()

    def write(self) -> None:
        """Write results.csv and the charts in their current state."""
        self.history.write(self.folder / "results.csv")
        if self.plots and self.history.rows and has_matplotlib():
            path = self.folder / "chart.png"
            write_chart(self.history, path, max_batches=self.last, max_loss=self.max_loss, metric=self.metric)
            write_results(self.history, self.folder / "results.png")

    def close(self) -> None:
        """Called at the end of the run, regardless of its outcome."""
        if self.board:
            self.board.close()

    def write_labels(self, splits: DataSplits, plan: Plan) -> None:
        """Write labels.jpg: classes, box positions and sizes of the training images, and the network's anchors."""
        checked = splits.checked
        if not (self.plots and has_matplotlib() and checked.labels):
            return
        anchors = None
        if anchor_heads(plan):
            anchors = np.array(anchors_in_pixels(plan)) / plan.input.size_wh
        plot_labels(self.folder / "labels.jpg", checked, anchors)

    def write_validation(self, result: Result) -> None:
        """Write val_batch0_labels.jpg and val_batch0_pred.jpg: ground truth and detections of the first validation images.

        Detections are drawn above the confidence threshold at which precision and recall are reported.
        """
        if not self.plots or not isinstance(result, EvaluationResult):
            return
        names, threshold = result.dataset.names, np.float32(result.metrics.confusion.conf_thresh)
        labels, predictions = list[GridImage](), list[GridImage]()
        for place, index in enumerate(result.indices[:MAX_GRID_IMAGES]):
            try:
                image = read_image(result.dataset.images[index], 3)
            except InputError:
                continue  # deleted since the evaluation
            truth, found = result.ground_truth[place], result.detections[place]
            ids = truth.class_ids.tolist()
            labels.append(GridImage(image, truth.xyxy, ids, [class_name(names, i) for i in ids]))
            found = found.select(found.scores > threshold).select(slice(None, None, -1))
            texts = [f"{class_name(names, i)} {score:.2f}" for _, score, i in found]
            predictions.append(GridImage(image, found.xyxy, found.class_ids.tolist(), texts))
        if labels:
            save_image(self.folder / "val_batch0_labels.jpg", image_grid(labels))
            save_image(self.folder / "val_batch0_pred.jpg", image_grid(predictions))

    def previewed(self, batches: Iterable[TrainBatch], names: Sequence[str]) -> Iterator[TrainBatch]:
        """Pass the batches on, saving the first ones as images; names: class names."""
        for number, batch in enumerate(batches):
            if number < _PREVIEWS and self.plots and batch.ground_truth.dim() == 3:
                path = self.folder / f"train_batch{number}.jpg"
                save_image(path, batch_sheet(batch.images.numpy(), batch.ground_truth.numpy(), names))
            yield batch

    def write_problems(self, findings: Mapping[Finding, int]) -> None:
        """Warn of unusable images and labels, and list them in problems.txt; findings: number of occurrences of each."""
        if not findings:
            return
        lines = [f"{count} x {finding}" for finding, count in findings.items()]
        for line in lines[:_PROBLEMS_SHOWN]:
            logger.warning("could not be used: %s", line)
        path = self.folder / "problems.txt"
        try:
            write_text(path, "\n".join(lines) + "\n")
        except RunError as error:  # must not hide the outcome of the run
            logger.warning("%s", error)
            return
        text = "%d images or labels could not be used, which cost %d samples or boxes: %s"
        logger.warning(text, len(lines), sum(findings.values()), path)


def batch_sheet(images: NDArray[np.uint8], targets: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.uint8]:
    """Draw the first images of a batch side by side, with their boxes; returns uint8 RGB (height, width, 3).

    images: uint8 (b, channels, height, width).
    targets: float32 (b, max, 5), cxcywh relative to the image, and class id.
    """
    cells = []
    for image, rows in zip(images[:MAX_GRID_IMAGES], targets[:MAX_GRID_IMAGES], strict=True):
        height, width = image.shape[1:]
        rgb = np.ascontiguousarray(np.broadcast_to(image.transpose(1, 2, 0), (height, width, 3)))
        boxes = rows[rows[:, 2] > 0]
        centre, half = boxes[:, :2], boxes[:, 2:4] / 2
        xyxy = np.concatenate([centre - half, centre + half], axis=1)
        ids = [int(class_id) for class_id in boxes[:, 4]]
        scaled = xyxy * np.array([width, height, width, height], np.float32)
        cells.append(GridImage(rgb, scaled, ids, [class_name(names, class_id) for class_id in ids]))
    return image_grid(cells)


def has_matplotlib() -> bool:
    """Whether matplotlib is installed, so that charts can be drawn."""
    return is_installed("matplotlib")

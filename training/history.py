"""The log of a training run: average loss, losses and metrics by iteration, as results.csv and for TensorBoard."""

from __future__ import annotations

import csv
import io
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.loop import Update
from utils.errors import InputError
from utils.files import write_text
from utils.packages import is_installed, need

logger = logging.getLogger(__name__)

_COLUMNS = ("iteration", "loss", "average_loss", "rate", "width", "height", "images_per_second")
_TERM = "loss_"
_TENSORBOARD = "tensorboard"
_ROWS = 2000  # approximate maximum, regardless of the length of training


@dataclass
class TrainingHistory:
    """Rows of means, each over `interval` iterations or up to an evaluation, whose results are added to the row.

    average: the original's avg loss, 0.9 times the old value plus 0.1 times the new (detector.c train_detector).
    """

    interval: int = 1
    average: float = -1.0
    rows: list[dict[str, float]] = field(default_factory=list)
    _open: list[Update] = field(default_factory=list)

    @classmethod
    def for_length(cls, max_batches: int) -> TrainingHistory:
        return cls(interval=max(1, max_batches // _ROWS))

    def add(self, update: Update) -> None:
        """Add an update; each interval ends with a complete row."""
        self.average = update.loss if self.average < 0 else 0.9 * self.average + 0.1 * update.loss
        self._open.append(update)
        if update.iteration % self.interval == 0:
            self._close()

    def evaluated(self, metrics: dict[str, float]) -> None:
        """Add the results of an evaluation to the row of the latest update."""
        self._close()
        self.rows[-1] |= metrics

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """Iterations and values of a column, skipping rows without a value."""
        points = [(row["iteration"], row[name]) for row in self.rows if name in row]
        return [x for x, _ in points], [y for _, y in points]

    @property
    def names(self) -> list[str]:
        """Columns: the fixed ones, then loss terms and metrics in order of appearance."""
        return list(dict.fromkeys([*_COLUMNS, *(name for row in self.rows for name in row)]))

    @property
    def metrics(self) -> list[str]:
        """The columns that come from evaluations."""
        return [name for name in self.names if name not in _COLUMNS and not name.startswith(_TERM)]

    def write(self, path: str | Path) -> None:
        """Write results.csv atomically."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.8g}" for name, value in row.items()} for row in self.rows)
        write_text(path, text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        self._close()
        return {"average": self.average, "rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        rows = [{str(name): float(value) for name, value in row.items()} for row in state["rows"]]
        if any(not set(_COLUMNS) <= set(row) for row in rows):
            raise ValueError(f"a row lacks one of {', '.join(_COLUMNS)}")
        self.average, self.rows, self._open = float(state["average"]), rows, []

    def _close(self) -> None:
        """Complete the current row, if one has been started."""
        updates, self._open = self._open, []
        if not updates:
            return
        last = updates[-1]
        seconds = sum(update.seconds + update.waited for update in updates)
        terms = {name for update in updates for name in update.terms}
        self.rows.append(
            {
                "iteration": last.iteration,
                "loss": _mean([update.loss for update in updates]),
                "average_loss": self.average,
                "rate": last.rate,
                "width": last.size_wh[0],
                "height": last.size_wh[1],
                "images_per_second": sum(update.images for update in updates) / max(seconds, 1e-9),
            }
            | {f"{_TERM}{name}": _mean([update.terms.get(name, 0.0) for update in updates]) for name in sorted(terms)}
        )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def board_wanted(asked: bool | None) -> bool:
    """Whether to write scalars; `asked` None: if TensorBoard is installed. Raises InputError if asked for but not installed."""
    if asked:
        need(_TENSORBOARD, _TENSORBOARD)
    return is_installed(_TENSORBOARD) if asked is None else asked


class Board:
    """Writes each row of `history` once to `folder`, as TensorBoard scalars.

    Scalars after the last row are hidden: a killed run wrote them after its last checkpoint.
    """

    def __init__(self, folder: Path, history: TrainingHistory) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.history, self._written, self._broken = history, len(history.rows), False
        after = int(history.rows[-1]["iteration"]) + 1 if history.rows else None
        try:
            self._writer = SummaryWriter(str(folder), purge_step=after)
        except UnicodeEncodeError:
            raise InputError(
                f"{folder}: TensorBoard needs a folder name in UTF-8; rename it, or use --no-tensorboard"
            ) from None

    def write(self) -> None:
        """Write new rows; call this after an evaluation, whose results belong to the latest row."""
        if self._broken:
            return
        try:
            for row in self.history.rows[self._written :]:
                for name, value in row.items():
                    if name != "iteration":
                        self._writer.add_scalar(name, value, int(row["iteration"]))
        except OSError as error:  # from an earlier row: TensorBoard writes in a thread
            self._give_up(error)
        self._written = len(self.history.rows)

    def close(self) -> None:
        """Write the remaining rows and close."""
        self.write()
        try:
            self._writer.close()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Continue without TensorBoard, for example when the disk is full or the run folder has disappeared."""
        if not self._broken:
            logger.warning("TensorBoard scalars can no longer be written: %s", error.strerror or error)
        self._broken = True

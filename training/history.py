"""The course of a training: running average of the loss, results.csv."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.loop import Update
from utils.files import write_text

_COLUMNS = ("iteration", "loss", "average_loss", "rate", "width", "height", "images_per_second")
_TERM = "loss_"
_ROWS = 2000  # about so many rows in all, however long the training


@dataclass
class TrainingHistory:
    """Collects updates; every so many iterations, and at every evaluation, they become a row.

    interval: iterations of a row; a row holds means over them. `average` is the original's avg loss: 0.9 of the old one and
    0.1 of the new (detector.c train_detector). metrics: results of the latest evaluations by name, in rows where there was one.
    """

    interval: int = 1
    average: float = -1.0
    rows: list[dict[str, float]] = field(default_factory=list)
    _open: list[Update] = field(default_factory=list)

    @classmethod
    def for_length(cls, max_batches: int) -> TrainingHistory:
        return cls(interval=max(1, max_batches // _ROWS))

    def add(self, update: Update) -> None:
        """Take in an update; a row is made when the interval is full."""
        self.average = update.loss if self.average < 0 else 0.9 * self.average + 0.1 * update.loss
        self._open.append(update)
        if update.iteration % self.interval == 0:
            self._close()

    def evaluated(self, metrics: dict[str, float]) -> None:
        """Put results of an evaluation into the row of the latest update."""
        if self._open:
            self._close()
        self.rows[-1] |= metrics

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """Iterations and values of a column, rows without it left out."""
        points = [(row["iteration"], row[name]) for row in self.rows if name in row]
        return [x for x, _ in points], [y for _, y in points]

    @property
    def names(self) -> list[str]:
        """Columns: the fixed ones first, then terms of the loss and metrics in order of appearance."""
        return list(dict.fromkeys([*_COLUMNS, *(name for row in self.rows for name in row)]))

    @property
    def metrics(self) -> list[str]:
        """Those of them that evaluations gave."""
        return [name for name in self.names if name not in _COLUMNS and not name.startswith(_TERM)]

    def write(self, path: str | Path) -> None:
        """Write results.csv, whole or not at all."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.8g}" for name, value in row.items()} for row in self.rows)
        write_text(path, text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        if self._open:
            self._close()
        return {"average": self.average, "rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average, self.rows, self._open = state["average"], list(state["rows"]), []

    def _close(self) -> None:
        updates, self._open = self._open, []
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

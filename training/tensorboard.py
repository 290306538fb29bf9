"""The course of a training for TensorBoard: the columns of results.csv as scalars."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from training.history import TrainingHistory
from utils.packages import need

PACKAGE = "tensorboard"


def board_wanted(asked: bool | None) -> bool:
    """Whether scalars are written; None: if TensorBoard is installed. Raises InputError if it is asked for and is not."""
    if asked:
        need(PACKAGE, PACKAGE)
    return importlib.util.find_spec(PACKAGE) is not None if asked is None else asked


class Board:
    """Writes rows of the history into `folder`, each once.

    What an earlier run wrote there after the last iteration of the history, and lost, is hidden.
    """

    def __init__(self, folder: Path, history: TrainingHistory) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.history, self._written = history, len(history.rows)
        after = int(history.rows[-1]["iteration"]) + 1 if history.rows else None
        self._writer = SummaryWriter(str(folder), purge_step=after)

    def write(self) -> None:
        """Write what is new; an evaluation belongs to the latest row and comes before this."""
        for row in self.history.rows[self._written :]:
            for name, value in row.items():
                if name != "iteration":
                    self._writer.add_scalar(name, value, int(row["iteration"]))
        self._written = len(self.history.rows)

    def close(self) -> None:
        """Write the rest."""
        self.write()
        self._writer.close()

"""When a training is saved, and under which names: checkpoints, and the original's weights files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.checkpoint import Checkpoint, save_checkpoint
from engine.loop import Update


@dataclass(frozen=True, kw_only=True)
class Saver:
    """Hook that writes `last.pt` and `<stem>_last.weights` every `last_every` iterations, `<stem>_<iteration>.weights` every
    `keep_every`, as the original does (detector.c train_detector).

    folder: where to. checkpoint: makes the run's state. write_weights: writes a weights file. keep_every 0: none are kept.
    """

    folder: Path
    stem: str
    checkpoint: Callable[[], Checkpoint]
    write_weights: Callable[[Path], None]
    last_every: int = 100
    keep_every: int = 1000

    def __call__(self, update: Update) -> None:
        if self.keep_every and update.iteration % self.keep_every == 0:
            self.write_weights(self.folder / f"{self.stem}_{update.iteration}.weights")
        if update.iteration % self.last_every == 0:
            self.last()

    def tidy(self) -> None:
        """Remove what a run that was killed while it wrote has left unfinished, here and in the folder above (utils/files.py
        atomic_write)."""
        for folder in (self.folder, self.folder.parent):
            for path in folder.glob(".*.part"):
                path.unlink(missing_ok=True)

    def last(self) -> None:
        """Save the state to go on from."""
        save_checkpoint(self.checkpoint(), self.folder / "last.pt")
        self.write_weights(self.folder / f"{self.stem}_last.weights")

    def best(self) -> None:
        """Save the state that measured best."""
        save_checkpoint(self.checkpoint(), self.folder / "best.pt")
        self.write_weights(self.folder / f"{self.stem}_best.weights")

    def final(self) -> None:
        """Save the end of the training."""
        self.last()
        self.write_weights(self.folder / f"{self.stem}_final.weights")

"""Progress on the console: a bar per epoch, or the original's lines."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from tqdm import tqdm

from training.history import TrainingHistory
from training.loop import Update
from utils.memory import peak_memory

_SHORTEST = 100  # minimum number of iterations per bar


class EpochBar:
    """Hook: a tqdm bar per epoch, or per 100 iterations if epochs are shorter, with loss, rate, size, speed and memory.

    images: number of training images.
    batch: images per update.
    last: the final iteration.
    """

    def __init__(self, history: TrainingHistory, images: int, batch: int, last: int) -> None:
        self.history, self.last = history, last
        self.length = max(images // batch, _SHORTEST)
        self.images, self.batch = images, batch
        self._bar: tqdm[None] | None = None

    def __call__(self, update: Update) -> None:
        bar = self._bar or self._open(update.iteration)
        terms = " ".join(f"{name} {value:.3g}" for name, value in update.terms.items())
        speed = update.images / max(update.seconds + update.waited, 1e-9)
        text = f"loss {update.loss:.4g} (avg {self.history.average:.4g}) {terms} lr {update.rate:.3g} {_size(update)}"
        bar.set_postfix_str(f"{text} {speed:.1f} img/s{_memory()}", refresh=False)
        bar.update()
        if bar.n >= (bar.total or 0):
            self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _open(self, iteration: int) -> tqdm[None]:
        done = (iteration - 1) % self.length
        start = iteration - 1 - done
        total = min(self.length, self.last - start)
        per_epoch = self.length if self.length > _SHORTEST else self.images / self.batch
        first, final, epochs = (math.ceil(each / per_epoch) for each in (start + 1, start + total, self.last))
        what = f"epoch {first}" if first == final else f"epochs {first}-{final}"
        self._bar = tqdm(total=total, initial=done, desc=f"{what}/{epochs}", dynamic_ncols=True)
        return self._bar


class DarknetLines:
    """Hook: the original's line for every iteration (detector.c train_detector)."""

    def __init__(self, history: TrainingHistory, last: int, write: Callable[[str], None] = print) -> None:
        self.history, self.last, self.write = history, last, write
        self.hours = -1.0  # hours left, by the original's estimate; it prints the value from before the update

    def __call__(self, update: Update) -> None:
        images = update.iteration * update.images
        self.write(
            f"\n {update.iteration}: {update.loss:f}, {self.history.average:f} avg loss, {update.rate:f} rate, "
            f"{update.seconds:f} seconds, {images} images, {self.hours:f} hours left"
        )
        self.estimate(update)

    def estimate(self, update: Update) -> None:
        """Update `hours`."""
        hours = (self.last - update.iteration) * (update.seconds + update.waited) / 3600
        self.hours = hours if self.hours < 0 else 0.01 * hours + 0.99 * self.hours

    def close(self) -> None:
        """Nothing to close."""


def _size(update: Update) -> str:
    width, height = update.size_wh
    return f"{width}x{height}"


def _memory() -> str:
    """Peak memory of the GPU, or of this process without a GPU, as text; empty if unknown."""
    if torch.cuda.is_available():
        return f" {torch.cuda.max_memory_reserved() / 2**30:.1f}G"
    peak = peak_memory()
    return f" {peak / 2**30:.1f}G" if peak else ""

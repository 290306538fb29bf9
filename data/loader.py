"""Endless training batches that depend on seed and iteration, but not on the number of workers or processes."""

from __future__ import annotations

import itertools
import logging
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Sampler

from data.annotations import Finding
from data.dataset import SampleKey, TrainingDataset, collate
from data.sampling import BatchShapes
from utils.errors import DataLoadingError

logger = logging.getLogger(__name__)

_FINDINGS_SHOWN = 10
_GRACE_S = 30
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, kw_only=True)
class TrainBatch:
    """One forward pass; an iteration (one weight update) has `subdivisions` of them.

    images: uint8 (b, channels, height, width), RGB, 0..255; the network expects them divided by 255.
    ground_truth: float32 (b, max_boxes, 5), cxcywh relative to the image and class id, with zero rows after the last box;
        for a classifier (b, classes).
    iteration, subdivision: counted from 0.
    """

    images: torch.Tensor
    ground_truth: torch.Tensor
    iteration: int
    subdivision: int

    @property
    def size_wh(self) -> tuple[int, int]:
        return self.images.shape[3], self.images.shape[2]


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Assignment of samples to batches.

    rank, world_size: this process and the number of processes that share each batch; each takes every world_size-th
        sample.
    """

    shapes: BatchShapes
    subdivisions: int
    rank: int = 0
    world_size: int = 1

    def keys(self, iteration: int, subdivision: int) -> list[SampleKey]:
        """Return the samples of one forward pass of this process."""
        shape = self.shapes.at(iteration)
        first = subdivision * shape.mini_batch
        slots = range(first + self.rank, first + shape.mini_batch, self.world_size)
        return [SampleKey(iteration, slot, shape.width, shape.height) for slot in slots]


class _BatchSampler(Sampler[list[SampleKey]]):
    """Keys of all forward passes from iteration `start` on."""

    def __init__(self, plan: BatchPlan, start: int) -> None:
        self.plan, self.start = plan, start

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for iteration, subdivision in _forward_passes(self.start, self.plan.subdivisions):
            yield self.plan.keys(iteration, subdivision)


def _forward_passes(start: int, subdivisions: int) -> Iterator[tuple[int, int]]:
    """Return iteration and subdivision of all forward passes from iteration `start` on."""
    return (divmod(number, subdivisions) for number in itertools.count(start * subdivisions))


class TrainLoader:
    """Endless iterable over TrainBatch; every iterator begins at iteration `start`.

    workers: number of processes that prepare batches in advance; 0: this process prepares them.
    findings: problems so far, with counts.
    """

    def __init__(
        self, dataset: TrainingDataset, plan: BatchPlan, *, workers: int = 0, start: int = 0, pin_memory: bool = False
    ) -> None:
        self.plan, self.start, self._workers, self._dataset = plan, start, workers, dataset
        self.findings: dict[Finding, int] = {}
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=_BatchSampler(plan, start),
            collate_fn=collate,
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=_init_worker,
            generator=torch.Generator(),  # the global one belongs to the network and is part of the checkpoint
        )

    def __iter__(self) -> Iterator[TrainBatch]:
        """Yield batches. Raises DataLoadingError if no image can be read or a worker process died."""
        if self._workers:
            cv2.setNumThreads(1)  # a forked worker would wait forever for OpenCV threads of the parent process
        loaded = _start(self._loader)
        for iteration, subdivision in _forward_passes(self.start, self.plan.subdivisions):
            images, ground_truth, findings = self._next(loaded)
            self._report(findings)
            if not len(images):
                raise DataLoadingError(f"no training image can be used: {findings[0]}")
            yield TrainBatch(images=images, ground_truth=ground_truth, iteration=iteration, subdivision=subdivision)

    def _next(self, loaded: Iterator[Any]) -> Any:
        try:
            return next(loaded)
        except (RuntimeError, OSError, EOFError) as error:
            if not _worker_died(error):
                raise
            shared = " or of space in /dev/shm" if _SHARED_MEMORY.exists() else ""
            text = f"a data loading worker died, perhaps out of memory{shared}; try fewer --workers, or 0"
            raise DataLoadingError(f"{text} ({error or type(error).__name__})") from error

    def files(self, batch: TrainBatch) -> list[Path]:
        """Return the image files that a batch was made of, by drawing it again."""
        keys = self.plan.keys(batch.iteration, batch.subdivision)
        return [path for key in keys for path in self._dataset.files(key)]

    def _report(self, findings: tuple[Finding, ...]) -> None:
        for finding in findings:
            known = self.findings.get(finding, 0)
            self.findings[finding] = known + 1
            if not known and len(self.findings) <= _FINDINGS_SHOWN:
                logger.warning("%s", finding)
            if not known and len(self.findings) == _FINDINGS_SHOWN + 1:
                logger.warning("further images or labels that cannot be used are counted, but not shown")


def _start(loader: DataLoader[Any]) -> Iterator[Any]:
    """Return the loader's iterator, without PyTorch's SIGCHLD handler.

    That handler raises wherever the main process happens to be when a worker dies, for example while writing a file.
    Without it, the iterator itself raises the next time it waits for a batch.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    loaded = iter(loader)
    signal.signal(signal.SIGCHLD, before)
    return loaded


def _worker_died(error: RuntimeError | OSError | EOFError) -> bool:
    """Return whether a worker died or its connection broke; errors raised inside a worker begin with "Caught"."""
    text = str(error)
    return text.startswith("DataLoader worker") if isinstance(error, RuntimeError) else not text.startswith("Caught")


def _init_worker(worker: int) -> None:
    """Set up a worker: one OpenCV thread (PyTorch limits its own), and signals left to the main process.

    Terminals and batch systems send SIGINT and SIGTERM to the whole process group, but the main process stops the
    workers. A worker that it does not stop exits by itself after a while, since Python waits for its workers at exit.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_GRACE_S))
    cv2.setNumThreads(1)

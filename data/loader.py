"""Batches for training, without end, the same for the same seed and iteration however many processes make them."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import torch
from torch.utils.data import DataLoader, Sampler

from data.dataset import Problem, SampleKey, TrainSample, collate
from data.multiscale import BatchShape
from utils.errors import SupplyError

logger = logging.getLogger(__name__)

_PROBLEMS_SHOWN = 10
_GRACE_S = 30
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, kw_only=True)
class TrainBatch:
    """One forward pass: `subdivisions` of them make an iteration (one weight update).

    images: uint8 (b, channels, height, width), RGB, 0..255; the network wants them divided by 255.
    truth: float32 (b, most, 5), cxcywh relative to the image and class id, zero rows behind the last box;
        for a classifier (b, classes).
    counts: int64 (b,), boxes of each image. iteration, subdivision: from 0.
    """

    images: torch.Tensor
    truth: torch.Tensor
    counts: torch.Tensor
    iteration: int
    subdivision: int

    @property
    def size_wh(self) -> tuple[int, int]:
        return self.images.shape[3], self.images.shape[2]


class Sizes(Protocol):
    """Shape of the batches of each iteration, such as SizeSchedule."""

    def at(self, iteration: int) -> BatchShape: ...


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Which samples make up which batch; state of the random sampler is the seed (in the data set) and the iteration.

    rank, world: this process's number and how many share each batch (several GPUs); each takes every world-th sample.
    """

    sizes: Sizes
    subdivisions: int
    rank: int = 0
    world: int = 1

    def keys(self, iteration: int, subdivision: int) -> list[SampleKey]:
        """Samples of one forward pass of this process."""
        shape = self.sizes.at(iteration)
        first = subdivision * shape.mini_batch
        slots = range(first + self.rank, first + shape.mini_batch, self.world)
        return [SampleKey(iteration, slot, shape.width, shape.height) for slot in slots]


class _Positions(Sampler[list[SampleKey]]):
    """Keys of all forward passes from an iteration on."""

    def __init__(self, plan: BatchPlan, start: int) -> None:
        self.plan, self.start = plan, start

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for iteration, subdivision in _passes(self.start, self.plan.subdivisions):
            yield self.plan.keys(iteration, subdivision)


def _passes(start: int, subdivisions: int) -> Iterator[tuple[int, int]]:
    iteration = start
    while True:
        yield from ((iteration, subdivision) for subdivision in range(subdivisions))
        iteration += 1


class Samples(Protocol):
    """Data sets such as DetectionDataset and ClassificationDataset."""

    def __getitem__(self, key: SampleKey) -> TrainSample: ...
    def files(self, key: SampleKey) -> list[Path]: ...


class TrainLoader:
    """Iterable over TrainBatch from iteration `start` on, without end; iterating again begins at `start` again.

    workers: processes that prepare batches ahead; 0: this process does. context: how they are started ("fork",
    "spawn"), default the platform's. problems: what could not be used so far, place and text, each once.
    """

    def __init__(
        self,
        samples: Samples,
        plan: BatchPlan,
        *,
        workers: int = 0,
        start: int = 0,
        pin_memory: bool = False,
        context: str | None = None,
    ) -> None:
        self.plan, self.start, self._workers, self._samples = plan, start, workers, samples
        self.problems: dict[Problem, int] = {}
        self._loader: DataLoader[Any] = DataLoader(
            samples,  # type: ignore[arg-type]
            batch_sampler=_Positions(plan, start),
            collate_fn=collate,
            num_workers=workers,
            pin_memory=pin_memory,
            multiprocessing_context=context if workers else None,
            worker_init_fn=_one_thread,
            generator=torch.Generator(),  # its own: PyTorch's global one belongs to the network, and is resumed with it
        )

    def __iter__(self) -> Iterator[TrainBatch]:
        """Raises SupplyError when no image can be read, or a worker process is gone."""
        if self._workers:
            cv2.setNumThreads(1)  # a forked worker waits for ever for the threads that OpenCV has had in its parent
        made = _started(self._loader)
        for iteration, subdivision in _passes(self.start, self.plan.subdivisions):
            images, truth, counts, problems = self._next(made)
            self._report(problems)
            if not len(images):
                raise SupplyError(f"no image can be read any more, the last: {problems[-1].text}")
            yield TrainBatch(images=images, truth=truth, counts=counts, iteration=iteration, subdivision=subdivision)

    def _next(self, made: Iterator[Any]) -> Any:
        try:
            return next(made)
        except (RuntimeError, OSError, EOFError) as error:
            if not _worker_gone(error):
                raise
            text = "a process that prepares images is gone; if it was for want of memory, try fewer --workers, or none"
            shared = " (they also share memory in /dev/shm)" if _SHARED_MEMORY.exists() else ""
            raise SupplyError(f"{text}{shared}; {error or type(error).__name__}") from error

    def files(self, batch: TrainBatch) -> list[Path]:
        """Images that a batch was made of, found by making it once more."""
        keys = self.plan.keys(batch.iteration, batch.subdivision)
        return [path for key in keys for path in self._samples.files(key)]

    def _report(self, problems: tuple[Problem, ...]) -> None:
        for problem in problems:
            known = self.problems.get(problem, 0)
            self.problems[problem] = known + 1
            if not known and len(self.problems) <= _PROBLEMS_SHOWN:
                logger.warning("%s", problem.text)
            if not known and len(self.problems) == _PROBLEMS_SHOWN + 1:
                logger.warning("more images or labels cannot be used; they are counted and listed, not shown")


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's iterator, with the handling of SIGCHLD as it was before.

    PyTorch's handler raises wherever the main process happens to be when a worker ends, in the middle of a weight update
    or of a file. Without it the iterator itself notices, when it waits for a batch.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    made = iter(loader)
    signal.signal(signal.SIGCHLD, before)
    return made


def _worker_gone(error: RuntimeError | OSError | EOFError) -> bool:
    """Whether PyTorch noticed a worker's end, or a connection to it broke; "Caught" begins what a worker itself raised."""
    text = str(error)
    return text.startswith("DataLoader worker") if isinstance(error, RuntimeError) else not text.startswith("Caught")


def _one_thread(worker: int) -> None:
    """Workers share the machine: one thread each for OpenCV (PyTorch sees to its own).

    Signals that end a run concern the main process, but reach the workers too where a terminal or a batch system sends
    them to the whole group. It is the main process that ends them; if it does not, they end after a while, because Python
    waits for them when it exits.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_GRACE_S))
    cv2.setNumThreads(1)

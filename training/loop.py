"""The training loop: takes batches and makes weight updates. It receives everything it needs and touches no files."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from data.loader import TrainBatch
from models.heads.base import HeadLoss
from training.adversarial import AdversarialPerturbation, perturb
from training.diagnosis import Context, explain_gradients, explain_loss
from training.optimizer import DarknetOptimizer
from training.schedule import Schedule
from utils.errors import RunError
from utils.processes import Processes

logger = logging.getLogger(__name__)


class Trainable(Protocol):
    """The interface of a network in training, implemented by models/training.py."""

    def begin(self, iteration: int) -> None: ...
    def losses(self, images: Tensor, labels: Tensor, seen: int) -> Sequence[HeadLoss]: ...
    def attack(self, images: Tensor, labels: Tensor, seen: int) -> Tensor: ...
    def absorb(self, replica: Any) -> None: ...
    def statistics(self) -> list[Tensor]: ...
    def layer_names(self) -> Sequence[tuple[str, nn.Module]]: ...


@dataclass(kw_only=True)
class Precision:
    """Data type of the forward pass, and the gradient scaler that float16 needs so that small gradients do not vanish."""

    dtype: torch.dtype = torch.float32
    scaler: torch.amp.GradScaler | None = None

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)


def clip_norm(gradients: list[Tensor], limit: float) -> bool:
    """Scale all gradients by one factor so that their joint norm is at most `limit` (0: no limit).

    Returns False, without changing anything, if one of them is not finite.
    """
    if not gradients:
        return True
    norms = torch.stack(torch._foreach_norm(gradients))
    if not bool(torch.isfinite(norms).all()):
        return False
    norm = float(torch.linalg.vector_norm(norms)) if limit else 0.0
    if norm > limit:
        torch._foreach_mul_(gradients, limit / norm)
    return True


@dataclass(frozen=True, kw_only=True)
class Update:
    """A completed weight update.

    loss: per image, as the original reports it.
    terms: parts of the loss, averaged over heads with targets.
    seconds: computing time.
    waited: seconds spent waiting for the batches.
    """

    iteration: int
    rate: float
    loss: float
    terms: dict[str, float]
    images: int
    size_wh: tuple[int, int]
    seconds: float
    waited: float


class Trainer:
    """Makes weight updates.

    batch: images per update.
    subdivisions: forward passes per update; split further, with a warning, if memory runs out.
    files: returns the image files of a batch, for messages.
    max_norm: largest joint norm of all gradients, averaged over the images of a batch; 0: no limit.
    adversary: perturbs images.
    processes: the processes that share each batch; `update` receives this process's part.
    replicas: networks that share the weights; as many passes of an update, and one more, are made at the same time, each
        on an equal part of the threads. The sums are taken in the order of the passes. Only for a single process.

    iteration: updates made so far.
    seen: images trained on, counted as the original does: iteration * batch.
    """

    def __init__(
        self,
        network: Trainable,
        optimizer: DarknetOptimizer,
        schedule: Schedule,
        *,
        batch: int,
        subdivisions: int,
        device: torch.device,
        precision: Precision | None = None,
        channels_last: bool = False,
        files: Callable[[TrainBatch], Sequence[str]] = lambda batch: (),
        max_norm: float = 0.0,
        adversary: AdversarialPerturbation | None = None,
        processes: Processes | None = None,
        replicas: Sequence[Trainable] = (),
    ) -> None:
        self.network, self.optimizer, self.schedule = network, optimizer, schedule
        self.batch, self.subdivisions, self.device = batch, subdivisions, device
        self.precision = precision or Precision()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.files, self.max_norm, self.adversary = files, max_norm, adversary
        self.processes = processes or Processes()
        self.networks = (network, *replicas)
        self.iteration = 0
        self.pieces = 1
        threads = max(1, torch.get_num_threads() // len(self.networks))
        self._pool = ThreadPoolExecutor(len(self.networks), "pass", torch.set_num_threads, (threads,))

    @property
    def seen(self) -> int:
        return self.iteration * self.batch

    def update(self, batches: Sequence[TrainBatch], waited: float = 0.0) -> Update:
        """Make a weight update from the batches of one iteration. Raises RunError if loss or gradient is not finite."""
        start = time.perf_counter()
        rate = self.schedule.rate(self.iteration + 1)
        self._seed_process()
        for network in self.networks:
            network.begin(self.iteration + 1)
        loss, terms = self._gradients(batches, rate)
        images, loss, terms = self._reduced(sum(len(batch.images) for batch in batches), loss, terms)
        self._step(batches, rate, images)
        self.iteration += 1
        height, width = batches[0].images.shape[2:]
        return Update(
            iteration=self.iteration,
            rate=rate,
            loss=loss / images,
            terms={name: value / images for name, value in terms.items()},
            images=images,
            size_wh=(width, height),
            seconds=time.perf_counter() - start,
            waited=waited,
        )

    def _gradients(self, batches: Sequence[TrainBatch], rate: float) -> tuple[float, dict[str, float]]:
        """Accumulate gradients over the batches; returns cost and terms, summed over the images."""
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                return self._passes(batches, rate)
            except torch.OutOfMemoryError:
                if self.processes.count > 1:  # all processes must make the same number of passes
                    raise RunError(f"out of memory at {_size(batches)}: raise --subdivisions") from None
                largest = max(len(batch.images) for batch in batches)
                if self.pieces >= largest:
                    raise RunError(f"out of memory with one image at a time at {_size(batches)}") from None
                self.pieces *= 2
                torch.cuda.empty_cache()
                now = self.subdivisions * self.pieces
                logger.warning("out of memory at %s: subdivisions raised from %d to %d", _size(batches), now // 2, now)

    def _passes(self, batches: Sequence[TrainBatch], rate: float) -> tuple[float, dict[str, float]]:
        total, terms = 0.0, dict[str, float]()
        for heads in self._losses(batches, rate):
            total += sum(head.cost for head in heads) / len(heads)  # network.c get_network_cost
            _add_terms(terms, heads)
        return total, terms

    def _losses(self, batches: Sequence[TrainBatch], rate: float) -> Iterator[Sequence[HeadLoss]]:
        """Make the passes of an update, several at a time if there are replicas; yield their losses in order."""
        count = len(self.networks)
        if count == 1:
            for number, batch in enumerate(batches, start=1):
                yield from self._pass(self.network, number, batch, rate)
            return
        for first in range(0, len(batches), count):
            group = enumerate(batches[first : first + count], start=first + 1)
            passes = [
                self._pool.submit(self._pass, network, number, batch, rate)
                for network, (number, batch) in zip(self.networks, group, strict=False)
            ]
            for losses in [each.result() for each in passes]:
                yield from losses
            for replica in self.networks[1 : len(passes)]:
                self.network.absorb(replica)

    def _pass(self, network: Trainable, number: int, batch: TrainBatch, rate: float) -> list[Sequence[HeadLoss]]:
        """Make pass `number` of an update (counted from 1), in pieces if memory ran out before."""
        images, labels = self._on_device(batch)
        step = self.adversary.step(self.iteration, number) if self.adversary else 0.0
        seen = self.seen + number * (self.batch // self.subdivisions)
        losses = []
        for images_part, labels_part in zip(images.chunk(self.pieces), labels.chunk(self.pieces), strict=True):
            if step:
                images_part = self._attacked(images_part, labels_part, seen, step)
            heads = self._forward(network, images_part, labels_part, seen)
            objective = torch.stack([head.objective for head in heads]).sum()
            finite = bool(torch.isfinite(objective))
            if self.processes.any(not finite):
                forward = functools.partial(self._forward, network, images_part, labels_part, seen)
                text = explain_loss(network.layer_names(), forward, self._context([batch], rate))
                raise RunError("the loss of another process is not finite" if finite else text)
            scaler = self.precision.scaler
            (scaler.scale(objective) if scaler else objective).backward()
            losses.append(heads)
        return losses

    def _forward(self, network: Trainable, images: Tensor, labels: Tensor, seen: int) -> Sequence[HeadLoss]:
        with self.precision.autocast(self.device):
            return network.losses(images, labels, seen)

    def _attacked(self, images: Tensor, labels: Tensor, seen: int, step: float) -> Tensor:
        scaled = self.precision.scaler is not None  # float16 gradients would vanish
        with contextlib.nullcontext() if scaled else self.precision.autocast(self.device):
            return perturb(images, self.network.attack(images, labels, seen), step)

    def _seed_process(self) -> None:
        """Seed random layers by iteration and process, so that resuming does not need the states of other processes."""
        if self.processes.count > 1:
            place = self.iteration * self.processes.count + self.processes.rank
            torch.manual_seed(((self.schedule.seed << 40) + place) % 2**63)

    def _reduced(self, images: int, loss: float, terms: dict[str, float]) -> tuple[int, float, dict[str, float]]:
        """Sum images, cost and terms over processes; gradients are summed and rolling statistics averaged in place."""
        if self.processes.count == 1:
            return images, loss, terms
        names = list(terms)  # the same in all processes
        numbers = torch.tensor([images, loss, *(terms[name] for name in names)], dtype=torch.float64)
        numbers = numbers.to(self.device)
        self.processes.all_reduce([numbers])
        self.processes.all_reduce(self._weight_gradients())
        statistics = self.network.statistics()
        self.processes.all_reduce(statistics)
        for each in statistics:
            each /= self.processes.count
        count, total, *values = numbers.tolist()
        return round(count), total, dict(zip(names, values, strict=True))

    def _weight_gradients(self) -> list[Tensor]:
        return [w.grad for group in self.optimizer.param_groups for w in group["params"] if w.grad is not None]

    def _context(self, batches: Sequence[TrainBatch], rate: float) -> Context:
        files = [str(file) for batch in batches for file in self.files(batch)]
        return Context(self.iteration + 1, rate, [batch.ground_truth for batch in batches], files)

    def _on_device(self, batch: TrainBatch) -> tuple[Tensor, Tensor]:
        images = batch.images.to(self.device, non_blocking=True)
        if images.dtype == torch.uint8:
            images = images.float() / 255
        images = images.contiguous(memory_format=self.memory_format)
        return images, batch.ground_truth.to(self.device, non_blocking=True)

    def _step(self, batches: Sequence[TrainBatch], rate: float, images: int) -> None:
        scaler = self.precision.scaler
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        finite = clip_norm(self._weight_gradients(), self.max_norm * images)
        if scaler is not None:  # it skips an update that is not finite and lowers its scale
            scaler.step(self.optimizer, self.iteration + 1, rate, images)
            scaler.update()
        elif not finite:
            raise RunError(explain_gradients(self.network.layer_names(), self._context(batches, rate)))
        else:
            self.optimizer.step(self.iteration + 1, rate, images)


def run(
    trainer: Trainer,
    batches: Iterable[TrainBatch],
    last_iteration: int,
    hooks: Sequence[Callable[[Update], None]],
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Train until `last_iteration`, or until `stopped()`; hooks are called after every update, in order."""
    if trainer.iteration >= last_iteration:
        return
    iterator = iter(batches)
    while trainer.iteration < last_iteration and not stopped():
        start = time.perf_counter()
        group = list(itertools.islice(iterator, trainer.subdivisions))
        assert len(group) == trainer.subdivisions, "the loader has no end"
        update = trainer.update(group, time.perf_counter() - start)
        for hook in hooks:
            hook(update)


def _add_terms(terms: dict[str, float], heads: Sequence[HeadLoss]) -> None:
    matched = sum(head.targets > 0 for head in heads)
    for head in heads:
        share = 1 / (matched or len(heads)) if head.targets or not matched else 0.0
        for name, value in head.terms.items():
            terms[name] = terms.get(name, 0.0) + share * value


def _size(batches: Sequence[TrainBatch]) -> str:
    height, width = batches[0].images.shape[2:]
    return f"{width}x{height}"

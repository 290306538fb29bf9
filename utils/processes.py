"""Processes that train one network together, started by torchrun: one per GPU, or several that share the CPU cores.

Sums are plain all_reduce calls over flat buffers. PyTorch's DistributedDataParallel is not used: it averages where the
original sums, and it reduces during a backward pass, while an update has several of them (subdivisions). One sum after
the last pass is exact and keeps no state.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from utils.device import select_device
from utils.errors import InputError, RunError

T = TypeVar("T")

TIMEOUT = "CSPYOLO_TIMEOUT"  # environment variable: seconds after which a silent process counts as lost
_TIMEOUT = 1800.0
_POLL = 0.2  # seconds between checks whether the main process has finished
_BUCKET = 2**24  # elements of one buffer


@dataclass(frozen=True)
class Processes:
    """The processes of a training run: rank of this one among `count`, and its device if torchrun started it.

    All processes must call the methods in the same order; with one process they do nothing. They raise RunError if
    another process died. store: a key-value store shared by all of them.
    """

    rank: int = 0
    count: int = 1
    device: torch.device | None = None
    store: distributed.Store | None = None
    _meetings: Iterator[int] = field(default_factory=itertools.count)

    def __deepcopy__(self, memo: object) -> Processes:
        """Return the object itself: a copied network is connected to the same processes."""
        return self

    @property
    def main(self) -> bool:
        """Whether this process writes files, evaluates and logs."""
        return self.rank == 0

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes; all have the same device and dtype."""
        self._by_buffers(tensors, distributed.all_reduce)

    def broadcast(self, tensors: Sequence[Tensor], source: int = 0) -> None:
        """Replace each tensor by that of the process of rank `source`; all have the same device and dtype."""
        self._by_buffers(tensors, lambda buffer: distributed.broadcast(buffer, source))

    def any(self, flag: bool) -> bool:
        """Return whether any process sets the flag."""
        return flag if self.count == 1 else any(self.gather(flag))

    def await_main(self) -> None:
        """Wait until the main process arrives, however long that takes; the sums above have a timeout."""
        if self.store is None:
            return
        key = str(next(self._meetings))
        if self.main:
            self.store.set(key, "here")
        while not self.store.check([key]):
            time.sleep(_POLL)

    def first(self, make: Callable[[], T]) -> T:
        """Return the result of `make`, which the main process calls before the others do."""
        made = [make()] if self.main else []
        self.await_main()
        return made[0] if made else make()

    def gather(self, number: float) -> list[float]:
        """Return the number of each process, by rank."""
        numbers = torch.zeros(self.count, dtype=torch.float64, device=self.device)
        numbers[self.rank] = number
        self.all_reduce([numbers])
        return [float(each) for each in numbers.tolist()]

    def broadcast_bytes(self, content: bytes, source: int = 0) -> bytes:
        """Return the `content` passed by the process of rank `source`."""
        length = int(max(self.gather(len(content) if self.rank == source else 0)))
        data = torch.frombuffer(bytearray(content or length), dtype=torch.uint8).to(self.device)
        self.broadcast([data], source)
        return data.cpu().numpy().tobytes()

    def _by_buffers(self, tensors: Sequence[Tensor], exchange: Callable[[Tensor], object]) -> None:
        if self.count == 1:
            return
        with torch.no_grad():
            for some in _buckets(tensors):
                buffer = torch.cat([tensor.reshape(-1) for tensor in some])
                try:
                    exchange(buffer)
                except RuntimeError as error:  # PyTorch's error for a broken connection or a timeout
                    raise RunError(f"process {self.rank} of {self.count}: another process died ({error})") from error
                parts = buffer.split([tensor.numel() for tensor in some])
                for tensor, part in zip(some, parts, strict=True):
                    tensor.copy_(part.view_as(tensor))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    some: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if some and size + tensor.numel() > _BUCKET:
            yield some
            some, size = [], 0
        some.append(tensor)
        size += tensor.numel()
    if some:
        yield some


@contextmanager
def joined(device: str = "") -> Iterator[Processes]:
    """Connect the processes that torchrun started by NCCL (one GPU each) or Gloo; without torchrun there is only this one.

    device: "cpu" for Gloo. Raises InputError if the machine has fewer GPUs than processes, and for a bad TIMEOUT.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or "RANK" not in os.environ:
        yield Processes()
        return
    rank, own = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = torch.cuda.is_available() and device.strip().lower() != "cpu"
    if on_gpu and own >= torch.cuda.device_count():
        text = f"process {own} of this machine finds {torch.cuda.device_count()} GPUs"
        raise InputError(
            f"torchrun: {text}, expected one for each process; lower --nproc_per_node, or use --device cpu"
        )
    where = select_device(str(own) if on_gpu else "cpu")
    if on_gpu:
        torch.cuda.set_device(where)
    store, _, _ = next(distributed.rendezvous("env://"))
    distributed.init_process_group(
        "nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=count, timeout=_timeout()
    )
    processes = Processes(rank, count, where)
    attempt = processes.broadcast_bytes(os.urandom(8)).hex()  # torchrun keeps the store when it restarts processes
    yield dataclasses.replace(processes, store=distributed.PrefixStore(attempt, store))
    distributed.destroy_process_group()  # not after an error: it would wait for the others


def _timeout() -> timedelta:
    text = os.environ.get(TIMEOUT, str(_TIMEOUT))
    try:
        return timedelta(seconds=max(1.0, float(text)))
    except (ValueError, OverflowError):
        raise InputError(f"{TIMEOUT}={text}: expected seconds") from None

"""Processes that train one network together, started by torchrun: one per GPU, or several that share the CPU cores.

Sums are plain all_reduce calls over flat buffers. PyTorch's DistributedDataParallel is not used: it averages where the
original sums, and it reduces during a backward pass, while an update has several of them (subdivisions). One sum after
the last pass is exact and keeps no state.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from utils.errors import InputError, RunError

T = TypeVar("T")

_PATIENCE = timedelta(hours=6)  # the others wait while one evaluates; torchrun ends all if one dies
_BUCKET = 2**24  # elements of one buffer


@dataclass(frozen=True)
class Processes:
    """Rank of this process among `count`, and its device, if torchrun started it.

    All processes must call the methods in the same order; with one process they do nothing. They raise RunError if
    another process died.
    """

    rank: int = 0
    count: int = 1
    device: torch.device | None = None

    @property
    def main(self) -> bool:
        """Whether this process writes files, evaluates and logs."""
        return self.rank == 0

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes; all have the same device and dtype."""
        self._by_buffers(tensors, distributed.all_reduce)

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by that of the main process; all have the same device and dtype."""
        self._by_buffers(tensors, lambda buffer: distributed.broadcast(buffer, 0))

    def any(self, flag: bool) -> bool:
        """Whether any process sets the flag."""
        if self.count == 1:
            return flag
        number = torch.tensor(float(flag), device=self.device)
        self.add([number])
        return bool(number.item())

    def first(self, make: Callable[[], T]) -> T:
        """The result of `make`, which the main process calls before the others do."""
        made = [make()] if self.main else []
        self.any(False)
        return made[0] if made else make()

    def _by_buffers(self, tensors: Sequence[Tensor], exchange: Callable[[Tensor], object]) -> None:
        if self.count == 1:
            return
        with torch.no_grad():
            for some in _buckets(tensors):
                buffer = torch.cat([tensor.reshape(-1) for tensor in some])
                try:
                    exchange(buffer)
                except RuntimeError as error:  # PyTorch's error for a broken connection
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
    """The processes that torchrun started, connected by NCCL (one GPU each) or Gloo; only this one without torchrun.

    device: "cpu" for Gloo. Raises InputError if the machine has fewer GPUs than processes.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or "RANK" not in os.environ:
        yield Processes()
        return
    rank, own = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = torch.cuda.is_available() and device.strip().lower() != "cpu"
    if on_gpu and own >= torch.cuda.device_count():
        text = f"process {own} of this machine finds {torch.cuda.device_count()} GPUs"
        raise InputError(f"torchrun: {text}, expected one for each; lower --nproc_per_node, or use --device cpu")
    where = torch.device("cuda", own) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(where)
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    yield Processes(rank, count, where)
    distributed.destroy_process_group()  # not after an error: it would wait for the others

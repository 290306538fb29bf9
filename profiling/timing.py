"""Measured latency and energy of a forward pass."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.network import Network
from profiling.energy import EnergyCounter

# Uniform weights of variance 2/3 per input, halved in power by a rectifier, keep their power under this variance.
STEADY_VARIANCE = 1 / 3


def settle_statistics(network: Network) -> Network:
    """Set rolling statistics under which random weights neither overflow nor fade to denormal numbers, which are slow.

    A fresh network has zeros there, as in the original; a trained one does not need this.
    """
    with torch.no_grad():
        for _, item in network.stored():
            if item.kind == "rolling_variance":
                item.tensor.fill_(STEADY_VARIANCE)
    return network


WARM_UP = 3


@dataclass(frozen=True)
class Timing:
    """Median seconds of a pass; mean joules of a pass (of the whole processor, idle power included), None without a counter."""

    seconds: float
    joules: float | None


def time_forward(network: nn.Module, images: Tensor, runs: int, counter: EnergyCounter | None = None) -> Timing:
    """Measure `runs` passes of `images` in inference mode, after WARM_UP untimed ones."""
    wait: Callable[[], None] = torch.cuda.synchronize if images.is_cuda else _nothing
    seconds = []
    with torch.inference_mode():
        for _ in range(WARM_UP):
            network(images)
        wait()
        before = counter.joules() if counter else 0.0
        for _ in range(runs):
            start = time.perf_counter()
            network(images)
            wait()
            seconds.append(time.perf_counter() - start)
        used = counter.joules() - before if counter else None
    return Timing(statistics.median(seconds), None if used is None else used / runs)


def _nothing() -> None:
    """A CPU is done when the call returns."""

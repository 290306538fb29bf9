"""Measured latency of a forward pass."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from models.network import Network

# With uniform weights of variance 2/3 per input and a rectifier that halves the power, this variance keeps it constant.
STEADY_VARIANCE = 1 / 3


def settle_statistics(network: Network) -> Network:
    """Set rolling statistics with which random weights neither overflow nor fade to denormal numbers, which are slow.

    In a new network the statistics are zero, as in the original; a trained network does not need this.
    """
    with torch.no_grad():
        for _, item in network.stored():
            if item.kind == "rolling_variance":
                item.tensor.fill_(STEADY_VARIANCE)
    return network


WARM_UP = 3


@torch.inference_mode()
def time_forward(network: Callable[[Tensor], object], images: Tensor, runs: int) -> float:
    """Median seconds of `runs` passes over `images`, after WARM_UP untimed ones."""
    forward = forward_pass(network, images)
    for _ in range(WARM_UP):
        forward()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        forward()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def forward_pass(network: Callable[[Tensor], object], images: Tensor) -> Callable[[], None]:
    """A function that runs the network and returns once the result is ready."""

    @torch.inference_mode()
    def forward() -> None:
        network(images)
        if images.is_cuda:
            torch.cuda.synchronize(images.device)

    return forward

"""Latency and energy of a pass."""

from __future__ import annotations

import torch
from torch import nn

from profiling.energy import EnergyCounter
from profiling.timing import WARM_UP, time_forward


class Counting(nn.Module):
    """Counts its passes."""

    passes = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return images


def test_energy_is_of_the_measured_passes_only() -> None:
    network = Counting()
    timing = time_forward(network, torch.zeros(1), 4, EnergyCounter("test", lambda: 2.0 * network.passes))
    assert network.passes == WARM_UP + 4
    assert timing.joules == 2.0
    assert timing.seconds > 0


def test_without_a_counter_energy_is_unknown() -> None:
    assert time_forward(Counting(), torch.zeros(1), 2).joules is None

"""Self-adversarial training: images changed so that the network no longer sees the objects (network_kernels.cu
train_network_datum_gpu, backward_network_gpu). The original has it in its GPU build only."""

from __future__ import annotations

import random
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AdversarialPerturbation:
    """Which forward passes are attacked, and how strongly. rate: adversarial_lr of [net]; burn_in, max_batches: the schedule's."""

    rate: float
    burn_in: int
    max_batches: int
    seed: int = 0

    def step(self, updates: int, number: int) -> float:
        """Step size for forward pass `number` of an iteration, after `updates` weight updates; 0: no attack.

        After burn_in every other pass is attacked, at random, with a step that grows in proportion to the iteration.
        """
        if updates <= self.burn_in or random.Random(f"{self.seed} {updates} {number}").random() < 0.5:
            return 0.0
        return self.rate * updates / self.max_batches


def perturb(images: Tensor, gradient: Tensor, step: float) -> Tensor:
    """Images (n, channels, height, width) in [0, 1], one step down the gradient; NaN becomes 0, as on the GPU."""
    return (images - step * gradient).nan_to_num(nan=0.0).clamp(0, 1)

"""Self-adversarial training: perturbs images so that the network no longer detects their objects.

After network_kernels.cu train_network_datum_gpu and backward_network_gpu; only the original's GPU build has it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AdversarialPerturbation:
    """Decides which forward passes are attacked, and how strongly.

    rate: adversarial_lr of [net].
    burn_in, max_batches: those of the schedule.
    """

    rate: float
    burn_in: int
    max_batches: int
    seed: int = 0

    def step(self, updates: int, number: int) -> float:
        """Step size for forward pass `number` of an iteration, after `updates` weight updates; 0: no attack.

        After burn_in, each pass is attacked with probability 0.5 and a step that grows in proportion to the iteration.
        """
        if updates <= self.burn_in or random.Random(f"{self.seed} {updates} {number}").random() < 0.5:
            return 0.0
        return self.rate * updates / self.max_batches


def perturb(images: Tensor, gradient: Tensor, step: float) -> Tensor:
    """Move images (n, channels, height, width) in [0, 1] one step down the gradient; NaN becomes 0, as on the GPU."""
    return (images - step * gradient).nan_to_num(nan=0.0).clamp(0, 1)

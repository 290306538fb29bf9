"""AdamW: Adam with decay apart from the gradient (Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.optimizer import DarknetOptimizer, centres


class AdamW(DarknetOptimizer):
    """w *= 1 - rate * decay, for weights only; then w -= rate * m' / (sqrt(v') + eps).

    The moments m and v are of the gradient's mean over the pictures of a batch, and are corrected by the updates made with them.
    B1, B2, eps and decay are those of [net]; biases, scales and weights of shortcuts do not decay.
    """

    def _update(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], iteration: int, batch: int
    ) -> None:
        first, second = self._states(weights, "first"), self._states(weights, "second")
        beta1, beta2 = group["betas"]
        group["updates"] = count = group.get("updates", 0) + 1
        means = list(torch._foreach_div(gradients, batch))
        if group["centred"]:
            torch._foreach_sub_(means, centres(means))
        if group["decay"]:
            torch._foreach_mul_(weights, 1 - group["lr"] * group["decay_factor"])
        torch._foreach_mul_(first, beta1)
        torch._foreach_add_(first, means, alpha=1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, means, means, value=1 - beta2)
        divisors = torch._foreach_sqrt(second)
        torch._foreach_div_(divisors, (1 - beta2**count) ** 0.5)
        torch._foreach_add_(divisors, group["eps"])
        torch._foreach_addcdiv_(weights, first, divisors, value=-group["lr"] / (1 - beta1**count))

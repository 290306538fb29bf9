"""The original's weight updates: its SGD with momentum, and its Adam (convolutional_kernels.cu, blas_kernels.cu).

The rules are those of the original's GPU build. Gradients are sums over the images of a batch, not means.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from models.training import TrainedTensor
from utils.net_options import ScheduleOptions

_RULES = ("rate_factor", "decay", "adam", "centred", "update_limit", "weight_limit", "first_iteration")


class DarknetOptimizer(torch.optim.Optimizer):
    """SGD: update = momentum * update - gradient - decay * batch * w; w += rate / batch * update.

    Adam: d = -gradient - decay * batch * w feeds both moments, and w += rate * m' / (sqrt(v') + eps), where the moments are
    corrected by the iteration, not by the number of updates made. It decays biases and scales too. Weights of shortcuts are
    updated by SGD all the same, without decay and with updates limited to [-1, 1].

    A tensor without a gradient is updated as if the gradient were zero: it decays. Iterations that leave a tensor alone
    (dont_update, burnin_update) drop their gradients; the original adds them up and applies all of them at once.
    """

    def __init__(self, tensors: Iterable[TrainedTensor], options: ScheduleOptions) -> None:
        groups: dict[tuple[Any, ...], list[Tensor]] = defaultdict(list)
        for item in tensors:
            rules = [getattr(item, name) for name in _RULES]
            rules[_RULES.index("adam")] &= options.adam
            groups[tuple(rules)].append(item.tensor)
        described = [{"params": params} | dict(zip(_RULES, rules, strict=True)) for rules, params in groups.items()]
        defaults = {"momentum": options.momentum, "decay_factor": options.decay, "lr": options.learning_rate}
        super().__init__(described, defaults | {"betas": (options.B1, options.B2), "eps": options.eps})

    @torch.no_grad()
    def step(self, iteration: int, rate: float, batch: int) -> None:  # type: ignore[override]
        """One weight update. iteration: from 1. rate: learning rate before factors of layers. batch: images summed over."""
        for group in self.param_groups:
            group["lr"] = rate * group["rate_factor"]
            if iteration < group["first_iteration"]:
                continue
            weights = group["params"]
            gradients = [w.grad if w.grad is not None else torch.zeros_like(w) for w in weights]
            self._update(group, weights, gradients, iteration, batch)
            if group["weight_limit"]:
                torch._foreach_clamp_min_(weights, -group["weight_limit"])
                torch._foreach_clamp_max_(weights, group["weight_limit"])

    def _update(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], iteration: int, batch: int
    ) -> None:
        """Change the weights of a group by its rules."""
        if group["adam"]:
            self._adam(group, weights, gradients, iteration, batch)
        else:
            self._sgd(group, weights, gradients, batch)

    def _sgd(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], batch: int) -> None:
        updates = self._states(weights, "update")
        torch._foreach_mul_(updates, group["momentum"])
        torch._foreach_sub_(updates, gradients)
        if group["centred"]:
            torch._foreach_sub_(updates, centres(updates))
        if group["update_limit"]:
            torch._foreach_clamp_min_(updates, -group["update_limit"])
            torch._foreach_clamp_max_(updates, group["update_limit"])
        if group["decay"]:
            torch._foreach_add_(updates, weights, alpha=-group["decay_factor"] * batch)
        torch._foreach_add_(weights, updates, alpha=group["lr"] / batch)

    def _adam(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], iteration: int, batch: int
    ) -> None:
        first, second = self._states(weights, "first"), self._states(weights, "second")
        beta1, beta2 = group["betas"]
        descent = list(torch._foreach_neg(gradients))
        if group["centred"]:
            torch._foreach_sub_(descent, centres(descent))
        torch._foreach_add_(descent, weights, alpha=-group["decay_factor"] * batch)
        torch._foreach_mul_(first, beta1)
        torch._foreach_add_(first, descent, alpha=1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, descent, descent, value=1 - beta2)
        divisors = torch._foreach_sqrt(second)
        torch._foreach_div_(divisors, (1 - beta2**iteration) ** 0.5)
        torch._foreach_add_(divisors, group["eps"])
        torch._foreach_addcdiv_(weights, first, divisors, value=group["lr"] / (1 - beta1**iteration))

    def _states(self, weights: list[Tensor], name: str) -> list[Tensor]:
        for w in weights:
            if name not in self.state[w]:
                self.state[w][name] = torch.zeros_like(w)
        return [self.state[w][name] for w in weights]


def centres(updates: list[Tensor]) -> list[Tensor]:
    """Mean over everything but the first dimension, where the original's kernel runs (blas_kernels.cu gradient_centralization_gpu):
    zero for tensors with a number of inputs that is no multiple of 32."""
    return [
        u.mean(tuple(range(1, u.dim())), keepdim=True) if u[0].numel() % 32 == 0 else u.new_zeros(()) for u in updates
    ]


class AdamW(DarknetOptimizer):
    """w *= 1 - rate * decay, for weights only; then w -= rate * m' / (sqrt(v') + eps).

    The moments m and v are of the gradient's mean over the images of a batch, and are corrected by the updates made with them.
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

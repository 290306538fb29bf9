"""Weight updates: the original's SGD and Adam, AdamW, and two moving averages of the weights.

SGD with momentum and Adam follow the original's GPU build (convolutional_kernels.cu, blas_kernels.cu). Gradients are sums over
the images of a batch, not means. One moving average is the original's, the other suits short runs.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from models.network import Network
from models.training import TrainedTensor
from utils.net_options import ScheduleOptions

LAST_PART = 1000  # number of last iterations, which continue from the moving average
_RULES = ("rate_factor", "decay", "adam", "centred", "update_limit", "weight_limit", "first_iteration")


class DarknetOptimizer(torch.optim.Optimizer):
    """SGD: update = momentum * update - gradient - decay * batch * w; w += rate / batch * update.

    Adam: d = -gradient - decay * batch * w enters both moments; w += rate * m' / (sqrt(v') + eps), with moments corrected by
    the iteration, not by the number of updates made. Biases and scales decay too. Shortcut weights are always updated by
    SGD, without decay and with updates limited to [-1, 1].

    A tensor without a gradient is updated as if the gradient were zero, so it decays. Iterations that do not update a tensor
    (dont_update, burnin_update) drop its gradients; the original accumulates them and later applies them all at once.
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
        """Make a weight update.

        iteration: counted from 1.
        rate: learning rate, before the factors of the layers.
        batch: number of images.
        """
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
        """Update the weights of a parameter group."""
        if not group["adam"]:
            self._sgd(group, weights, gradients, batch)
            return
        descent = list(torch._foreach_neg(gradients))
        if group["centred"]:
            torch._foreach_sub_(descent, means_of_outputs(descent))
        torch._foreach_add_(descent, weights, alpha=-group["decay_factor"] * batch)
        self._step_by_moments(group, weights, descent, iteration, group["lr"])

    def _sgd(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], batch: int) -> None:
        updates = self._states(weights, "update")
        torch._foreach_mul_(updates, group["momentum"])
        torch._foreach_sub_(updates, gradients)
        if group["centred"]:
            torch._foreach_sub_(updates, means_of_outputs(updates))
        if group["update_limit"]:
            torch._foreach_clamp_min_(updates, -group["update_limit"])
            torch._foreach_clamp_max_(updates, group["update_limit"])
        if group["decay"]:
            torch._foreach_add_(updates, weights, alpha=-group["decay_factor"] * batch)
        torch._foreach_add_(weights, updates, alpha=group["lr"] / batch)

    def _step_by_moments(
        self, group: dict[str, Any], weights: list[Tensor], directions: list[Tensor], count: int, rate: float
    ) -> None:
        """w += rate * m' / (sqrt(v') + eps), with moments of `directions`, bias-corrected for `count` updates."""
        first, second = self._states(weights, "first"), self._states(weights, "second")
        beta1, beta2 = group["betas"]
        torch._foreach_mul_(first, beta1)
        torch._foreach_add_(first, directions, alpha=1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, directions, directions, value=1 - beta2)
        divisors = torch._foreach_sqrt(second)
        torch._foreach_div_(divisors, (1 - beta2**count) ** 0.5)
        torch._foreach_add_(divisors, group["eps"])
        torch._foreach_addcdiv_(weights, first, divisors, value=rate / (1 - beta1**count))

    def _states(self, weights: list[Tensor], name: str) -> list[Tensor]:
        for w in weights:
            if name not in self.state[w]:
                self.state[w][name] = torch.zeros_like(w)
        return [self.state[w][name] for w in weights]


def means_of_outputs(updates: list[Tensor]) -> list[Tensor]:
    """Means over all but the first dimension (blas_kernels.cu gradient_centralization_gpu).

    Zero if the number of inputs is not a multiple of 32, because then the original's kernel does nothing.
    """
    return [
        u.mean(tuple(range(1, u.dim())), keepdim=True) if u[0].numel() % 32 == 0 else u.new_zeros(()) for u in updates
    ]


class AdamW(DarknetOptimizer):
    """w *= 1 - rate * decay, for weights only; then w -= rate * m' / (sqrt(v') + eps).

    m and v are moments of the mean gradient over the images of a batch, corrected for the number of updates of each tensor.
    B1, B2, eps and decay come from [net]; biases, scales and shortcut weights do not decay.
    """

    def _update(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], iteration: int, batch: int
    ) -> None:
        group["updates"] = count = group.get("updates", 0) + 1
        means = list(torch._foreach_div(gradients, batch))
        if group["centred"]:
            torch._foreach_sub_(means, means_of_outputs(means))
        if group["decay"]:
            torch._foreach_mul_(weights, 1 - group["lr"] * group["decay_factor"])
        self._step_by_moments(group, weights, means, count, -group["lr"])


class Ema:
    """The original's moving average of the weights (network.c train_network_waitkey, ema_update, ema_apply).

    From the middle of training on, average = alpha * average + (1 - alpha) * weights. A thousand iterations before the end,
    the average replaces the weights, and the remaining iterations adapt the batch-norm statistics to it. It has no effect
    in a training of 2,000 iterations or fewer.
    """

    def __init__(self, tensors: Mapping[str, Tensor], alpha: float, max_batches: int) -> None:
        self.tensors = dict(tensors)
        self.alpha = alpha
        self.start, self.end = max_batches // 2, max_batches - LAST_PART
        self.averages: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Call after the weight update number `iteration`."""
        if iteration < self.start or iteration > self.end:
            return
        if not self.averages:
            self.averages = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}
        if iteration == self.end:
            for name, average in self.averages.items():
                self.tensors[name].copy_(average)
            return
        averages, weights = list(self.averages.values()), list(self.tensors.values())
        torch._foreach_mul_(averages, self.alpha)
        torch._foreach_add_(averages, weights, alpha=1 - self.alpha)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.averages)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.averages = {name: value.to(self.tensors[name].device) for name, value in state.items()}


class RunningAverage:
    """Moving average (`network`) of the weights and rolling statistics of the network in training, from the first update on.

    average = d * average + (1 - d) * weights with d = min(decay, (1 + n) / (10 + n)) after n updates, so the random initial
    weights are soon forgotten.
    """

    def __init__(self, trained: Network, decay: float) -> None:
        self.decay, self.network = decay, copy.deepcopy(trained)
        self._trained = trained

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Call after the weight update number `iteration`."""
        weight = 1 - min(self.decay, (1 + iteration) / (10 + iteration))
        torch._foreach_lerp_(_floats(self.network), _floats(self._trained), weight)


def _floats(network: Network) -> list[Tensor]:
    return [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]

"""Moving average of the weights, as the original keeps it (network.c train_network_waitkey, ema_update, ema_apply)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

LAST_PART = 1000  # iterations that are trained on from the average


class Ema:
    """average = alpha * average + (1 - alpha) * weights, from the middle of training on.

    A thousand iterations before the end the average takes the place of the weights; the rest of the training lets the
    statistics of batch normalisation follow. A training of no more than 2,000 iterations is too short for it.
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
            self._copy(self.averages, self.tensors)
            return
        averages, weights = list(self.averages.values()), list(self.tensors.values())
        torch._foreach_mul_(averages, self.alpha)
        torch._foreach_add_(averages, weights, alpha=1 - self.alpha)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and averages, to save or evaluate the averages; call again to change back."""
        kept = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}
        self._copy(self.averages, self.tensors)
        self.averages = kept

    def state_dict(self) -> dict[str, Any]:
        return dict(self.averages)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.averages = {name: value.to(self.tensors[name].device) for name, value in state.items()}

    def _copy(self, source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        for name in source:
            target[name].copy_(source[name])

"""Activation functions: one table from the cfg's word to the function (activations.c, activations.h)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "logistic": torch.sigmoid,
    "relu": F.relu,
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "mish": F.mish,
    "swish": F.silu,
}


class Activation(nn.Module):
    """The function that the word `name` stands for, on (n, channels, height, width)."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.name](x)

"""Activation functions: one table from the cfg's word to the function (activations.c, activations.h).

The original takes the gradient of most functions from their output. Where that is the true derivative, PyTorch's own
gradient serves; gelu and normalize_channels*, where it is not, have an autograd.Function each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.export.activations import EXPORTED
from models.export.graph import Graph
from utils.options import option

Function = Callable[[Tensor], Tensor]

_SUM_EPS = 1e-4  # activations.c activate_array_normalize_channels


class _Gelu(torch.autograd.Function):
    """activations.h gelu_activate, and gelu_gradient applied to the output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = 0.5 * x * (1 + torch.tanh(0.797885 * x + 0.035677 * x**3))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        cube = y**3
        inner = 0.0356774 * cube + 0.797885 * y
        slope = 0.5 * torch.tanh(inner) + (0.0535161 * cube + 0.398942 * y) / torch.cosh(inner) ** 2 + 0.5
        return grad * slope


class _NormalizeChannels(torch.autograd.Function):
    """activations.c activate_array_normalize_channels and gradient_array_normalize_channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = F.relu(x)
        y = positive / (positive.sum(1, keepdim=True) + _SUM_EPS)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.where(y > 0, grad * (y * grad).sum(1, keepdim=True), grad)


class _NormalizeChannelsSoftmax(torch.autograd.Function):
    """activations.c activate_array_normalize_channels_softmax and gradient_array_normalize_channels_softmax."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, use_max: bool) -> Tensor:
        powers = torch.exp(x - x.amax(1, keepdim=True) if use_max else x)
        y = powers / (powers.sum(1, keepdim=True) + _SUM_EPS)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return grad * (y * grad).sum(1, keepdim=True), None


def _hard_mish(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.where(x > -2, x * x / 2 + x, torch.zeros_like(x)))


def _plse(x: Tensor) -> Tensor:
    steep = 0.125 * x + 0.5
    return torch.where(x < -4, 0.01 * (x + 4), torch.where(x > 4, 0.01 * (x - 4) + 1, steep))


def _lhtan(x: Tensor) -> Tensor:
    return torch.where(x < 0, 0.001 * x, torch.where(x > 1, 0.001 * (x - 1) + 1, x))


def _stair(x: Tensor) -> Tensor:
    whole = torch.floor(x)
    return torch.where(torch.remainder(whole, 2) == 0, torch.floor(x / 2), x - whole + torch.floor(x / 2))


ACTIVATIONS: dict[str, Function] = {
    "linear": lambda x: x,
    "logistic": torch.sigmoid,
    "loggy": lambda x: 2 * torch.sigmoid(x) - 1,
    "relu": F.relu,
    "relu6": F.relu6,
    "elu": F.elu,
    "selu": lambda x: 1.0507 * F.elu(x, 1.6732),
    "gelu": _Gelu.apply,
    "relie": lambda x: F.leaky_relu(x, 0.01),
    "ramp": lambda x: F.relu(x) + 0.1 * x,
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "revleaky": lambda x: F.leaky_relu(x, 0.1),
    "tanh": torch.tanh,
    "plse": _plse,
    "stair": _stair,
    "hardtan": F.hardtanh,
    "lhtan": _lhtan,
    "swish": F.silu,
    "mish": F.mish,
    "hard_mish": _hard_mish,
    "normalize_channels": _NormalizeChannels.apply,
    "normalize_channels_softmax": lambda x: _NormalizeChannelsSoftmax.apply(x, False),
    "normalize_channels_softmax_maxval": lambda x: _NormalizeChannelsSoftmax.apply(x, True),
}

_IN_PLACE: dict[str, Function] = {
    "relu": F.relu_,
    "leaky": lambda x: F.leaky_relu_(x, 0.1),
    "logistic": torch.sigmoid_,
    "mish": lambda x: F.mish(x, inplace=True),
    "swish": lambda x: F.silu(x, inplace=True),
}


def activation_option(default: str, doc: str) -> Any:
    """The key `activation` of a layer. An unknown word is relu, with a warning (activations.c get_activation)."""
    return option(default, doc, choices=tuple(ACTIVATIONS), otherwise="relu")


class Activation(nn.Module):
    """The function that the word `name` stands for, on (n, channels, height, width).

    owned: the input is the caller's own intermediate result and may be overwritten when it has no gradient.
    """

    def __init__(self, name: str, *, owned: bool = False) -> None:
        super().__init__()
        self.name = name
        self.function = ACTIVATIONS[name]
        self.in_place = _IN_PLACE.get(name, self.function) if owned else self.function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x) if x.requires_grad else self.in_place(x)

    def export(self, graph: Graph, x: str) -> str:
        """The function in an ONNX graph."""
        return EXPORTED[self.name](graph, x)

    def extra_repr(self) -> str:
        return self.name

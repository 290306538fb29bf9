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

from models.onnx_graph import Graph
from utils.options import option

_ONNX_SUM_EPS = 1e-4


def _scaled(graph: Graph, op: str, factor: float, x: str, **attributes: float) -> str:
    return graph.node("Mul", graph.node(op, x, **attributes), factor)


def _loggy(graph: Graph, x: str) -> str:
    return graph.node("Sub", _scaled(graph, "Sigmoid", 2.0, x), 1.0)


def _gelu(graph: Graph, x: str) -> str:
    cube = graph.node("Mul", graph.node("Mul", x, x), x)
    inner = graph.node("Add", graph.node("Mul", x, 0.797885), graph.node("Mul", cube, 0.035677))
    return graph.node("Mul", graph.node("Mul", x, 0.5), graph.node("Add", graph.node("Tanh", inner), 1.0))


def _ramp(graph: Graph, x: str) -> str:
    return graph.node("Add", graph.node("Relu", x), graph.node("Mul", x, 0.1))


def _bent(graph: Graph, x: str, middle: str, low: float, high: float, slope: float) -> str:
    """middle plus `slope` times the part of x below `low` and above `high`."""
    below = graph.clip(graph.node("Sub", x, low), None, 0.0)
    above = graph.node("Relu", graph.node("Sub", x, high))
    return graph.node("Add", middle, graph.node("Mul", graph.node("Add", below, above), slope))


def _onnx_plse(graph: Graph, x: str) -> str:
    steep = graph.node("Add", graph.node("Mul", x, 0.125), 0.5)
    return _bent(graph, x, graph.clip(steep, 0.0, 1.0), -4.0, 4.0, 0.01)


def _onnx_lhtan(graph: Graph, x: str) -> str:
    return _bent(graph, x, graph.clip(x, 0.0, 1.0), 0.0, 1.0, 0.001)


def _onnx_stair(graph: Graph, x: str) -> str:
    """floor(x / 2), to which the fraction of x is added where its whole part is odd."""
    whole = graph.node("Floor", x)
    half = graph.node("Floor", graph.node("Mul", x, 0.5))
    odd = graph.node("Sub", whole, graph.node("Mul", half, 2.0))
    return graph.node("Add", half, graph.node("Mul", graph.node("Sub", x, whole), odd))


def _swish(graph: Graph, x: str) -> str:
    return graph.node("Mul", x, graph.node("Sigmoid", x))


def _mish(graph: Graph, x: str) -> str:
    if graph.opset >= 18:
        return graph.node("Mish", x)
    return graph.node("Mul", x, graph.node("Tanh", graph.node("Softplus", x)))


def _onnx_hard_mish(graph: Graph, x: str) -> str:
    left = graph.clip(x, -2.0, 0.0)
    bow = graph.node("Add", graph.node("Mul", graph.node("Mul", left, left), 0.5), left)
    return graph.node("Add", graph.node("Relu", x), bow)


def _share(graph: Graph, positive: str) -> str:
    return graph.node("Div", positive, graph.node("Add", graph.sum(positive, 1), _ONNX_SUM_EPS))


def _softmax_of_largest(graph: Graph, x: str) -> str:
    return _share(graph, graph.node("Exp", graph.node("Sub", x, graph.largest(x, 1))))


EXPORTED: dict[str, Callable[[Graph, str], str]] = {
    "linear": lambda graph, x: x,
    "logistic": lambda graph, x: graph.node("Sigmoid", x),
    "loggy": _loggy,
    "relu": lambda graph, x: graph.node("Relu", x),
    "relu6": lambda graph, x: graph.clip(x, 0.0, 6.0),
    "elu": lambda graph, x: graph.node("Elu", x, alpha=1.0),
    "selu": lambda graph, x: _scaled(graph, "Elu", 1.0507, x, alpha=1.6732),
    "gelu": _gelu,
    "relie": lambda graph, x: graph.node("LeakyRelu", x, alpha=0.01),
    "ramp": _ramp,
    "leaky": lambda graph, x: graph.node("LeakyRelu", x, alpha=0.1),
    "revleaky": lambda graph, x: graph.node("LeakyRelu", x, alpha=0.1),
    "tanh": lambda graph, x: graph.node("Tanh", x),
    "plse": _onnx_plse,
    "stair": _onnx_stair,
    "hardtan": lambda graph, x: graph.clip(x, -1.0, 1.0),
    "lhtan": _onnx_lhtan,
    "swish": _swish,
    "mish": _mish,
    "hard_mish": _onnx_hard_mish,
    "normalize_channels": lambda graph, x: _share(graph, graph.node("Relu", x)),
    "normalize_channels_softmax": lambda graph, x: _share(graph, graph.node("Exp", x)),
    "normalize_channels_softmax_maxval": _softmax_of_largest,
}


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

"""Activation functions: a table from the cfg's name to the PyTorch and ONNX versions (activations.c, activations.h).

The original computes most gradients from the function's output. Where that equals the true derivative, autograd is used;
where it does not (gelu and normalize_channels*), the function is an autograd.Function with the original's gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.onnx_graph import Graph
from utils.options import option

_SUM_EPS = 1e-4  # activations.c activate_array_normalize_channels


class _Gelu(torch.autograd.Function):
    """GELU with the original's gradient (activations.h gelu_activate; gelu_gradient, applied to the output)."""

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


def _gelu_onnx(graph: Graph, x: str) -> str:
    cube = graph.node("Mul", graph.node("Mul", x, x), x)
    inner = graph.node("Add", graph.node("Mul", x, 0.797885), graph.node("Mul", cube, 0.035677))
    return graph.node("Mul", graph.node("Mul", x, 0.5), graph.node("Add", graph.node("Tanh", inner), 1.0))


def _plse(x: Tensor) -> Tensor:
    steep = 0.125 * x + 0.5
    return torch.where(x < -4, 0.01 * (x + 4), torch.where(x > 4, 0.01 * (x - 4) + 1, steep))


def _plse_onnx(graph: Graph, x: str) -> str:
    steep = graph.node("Add", graph.node("Mul", x, 0.125), 0.5)
    return _with_slopes(graph, x, graph.clip(steep, 0.0, 1.0), -4.0, 4.0, 0.01)


def _lhtan(x: Tensor) -> Tensor:
    return torch.where(x < 0, 0.001 * x, torch.where(x > 1, 0.001 * (x - 1) + 1, x))


def _lhtan_onnx(graph: Graph, x: str) -> str:
    return _with_slopes(graph, x, graph.clip(x, 0.0, 1.0), 0.0, 1.0, 0.001)


def _with_slopes(graph: Graph, x: str, middle: str, low: float, high: float, slope: float) -> str:
    """`middle` plus `slope` times the part of x below `low` and above `high`."""
    below = graph.clip(graph.node("Sub", x, low), None, 0.0)
    above = graph.node("Relu", graph.node("Sub", x, high))
    return graph.node("Add", middle, graph.node("Mul", graph.node("Add", below, above), slope))


def _stair(x: Tensor) -> Tensor:
    whole = torch.floor(x)
    return torch.where(torch.remainder(whole, 2) == 0, torch.floor(x / 2), x - whole + torch.floor(x / 2))


def _stair_onnx(graph: Graph, x: str) -> str:
    whole = graph.node("Floor", x)
    half = graph.node("Floor", graph.node("Mul", x, 0.5))
    odd = graph.node("Sub", whole, graph.node("Mul", half, 2.0))
    return graph.node("Add", half, graph.node("Mul", graph.node("Sub", x, whole), odd))


def _hard_mish(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.where(x > -2, x * x / 2 + x, torch.zeros_like(x)))


def _hard_mish_onnx(graph: Graph, x: str) -> str:
    left = graph.clip(x, -2.0, 0.0)
    curve = graph.node("Add", graph.node("Mul", graph.node("Mul", left, left), 0.5), left)
    return graph.node("Add", graph.node("Relu", x), curve)


def _mish_onnx(graph: Graph, x: str) -> str:
    if graph.opset >= 18:
        return graph.node("Mish", x)
    return graph.node("Mul", x, graph.node("Tanh", graph.node("Softplus", x)))


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


def _normalized_onnx(graph: Graph, positive: str) -> str:
    return graph.node("Div", positive, graph.node("Add", graph.sum(positive, 1), _SUM_EPS))


class _Function(NamedTuple):
    torch: Callable[[Tensor], Tensor]
    onnx: Callable[[Graph, str], str]
    in_place: Callable[[Tensor], Tensor] | None = None


_LEAKY = _Function(
    lambda x: F.leaky_relu(x, 0.1),
    lambda graph, x: graph.node("LeakyRelu", x, alpha=0.1),
    lambda x: F.leaky_relu_(x, 0.1),
)

ACTIVATIONS: dict[str, _Function] = {
    "linear": _Function(lambda x: x, lambda graph, x: x),
    "logistic": _Function(torch.sigmoid, lambda graph, x: graph.node("Sigmoid", x), torch.sigmoid_),
    "loggy": _Function(
        lambda x: 2 * torch.sigmoid(x) - 1,
        lambda graph, x: graph.node("Sub", graph.node("Mul", graph.node("Sigmoid", x), 2.0), 1.0),
    ),
    "relu": _Function(F.relu, lambda graph, x: graph.node("Relu", x), F.relu_),
    "relu6": _Function(F.relu6, lambda graph, x: graph.clip(x, 0.0, 6.0)),
    "elu": _Function(F.elu, lambda graph, x: graph.node("Elu", x, alpha=1.0)),
    "selu": _Function(
        lambda x: 1.0507 * F.elu(x, 1.6732),
        lambda graph, x: graph.node("Mul", graph.node("Elu", x, alpha=1.6732), 1.0507),
    ),
    "gelu": _Function(_Gelu.apply, _gelu_onnx),
    "relie": _Function(lambda x: F.leaky_relu(x, 0.01), lambda graph, x: graph.node("LeakyRelu", x, alpha=0.01)),
    "ramp": _Function(
        lambda x: F.relu(x) + 0.1 * x,
        lambda graph, x: graph.node("Add", graph.node("Relu", x), graph.node("Mul", x, 0.1)),
    ),
    "leaky": _LEAKY,
    "revleaky": _LEAKY,
    "tanh": _Function(torch.tanh, lambda graph, x: graph.node("Tanh", x)),
    "plse": _Function(_plse, _plse_onnx),
    "stair": _Function(_stair, _stair_onnx),
    "hardtan": _Function(F.hardtanh, lambda graph, x: graph.clip(x, -1.0, 1.0)),
    "lhtan": _Function(_lhtan, _lhtan_onnx),
    "swish": _Function(
        F.silu,
        lambda graph, x: graph.node("Mul", x, graph.node("Sigmoid", x)),
        lambda x: F.silu(x, inplace=True),
    ),
    "mish": _Function(F.mish, _mish_onnx, lambda x: F.mish(x, inplace=True)),
    "hard_mish": _Function(_hard_mish, _hard_mish_onnx),
    "normalize_channels": _Function(
        _NormalizeChannels.apply, lambda graph, x: _normalized_onnx(graph, graph.node("Relu", x))
    ),
    "normalize_channels_softmax": _Function(
        lambda x: _NormalizeChannelsSoftmax.apply(x, False),
        lambda graph, x: _normalized_onnx(graph, graph.node("Exp", x)),
    ),
    "normalize_channels_softmax_maxval": _Function(
        lambda x: _NormalizeChannelsSoftmax.apply(x, True),
        lambda graph, x: _normalized_onnx(graph, graph.node("Exp", graph.node("Sub", x, graph.largest(x, 1)))),
    ),
}


ALIASES = {"silu": "swish"}  # the name that PyTorch ports use in their cfgs


def activation_option(default: str, doc: str) -> Any:
    """The `activation` option of a layer. An unknown word means relu, with a warning (activations.c get_activation)."""
    return option(default, doc, choices=tuple(ACTIVATIONS), otherwise="relu", aliases=ALIASES)


class Activation(nn.Module):
    """The activation function called `name` in a cfg, applied to (n, channels, height, width).

    owned: the input is an intermediate result of the caller and may be overwritten if it needs no gradient.
    """

    def __init__(self, name: str, *, owned: bool = False) -> None:
        super().__init__()
        self.name, self.owned = name, owned  # not the functions: lambdas cannot be pickled

    def forward(self, x: Tensor) -> Tensor:
        function = ACTIVATIONS[self.name]
        in_place = function.in_place if self.owned and not x.requires_grad else None
        return (in_place or function.torch)(x)

    def export(self, graph: Graph, x: str) -> str:
        """Add the function to an ONNX graph; returns the name of its output."""
        return ACTIVATIONS[self.name].onnx(graph, x)

    def extra_repr(self) -> str:
        return self.name

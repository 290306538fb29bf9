"""Activation functions as ONNX operations, by the cfg's word (see models/activations.py for their sources)."""

from __future__ import annotations

from collections.abc import Callable

from models.export.graph import Graph

_SUM_EPS = 1e-4


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


def _plse(graph: Graph, x: str) -> str:
    steep = graph.node("Add", graph.node("Mul", x, 0.125), 0.5)
    return _bent(graph, x, graph.clip(steep, 0.0, 1.0), -4.0, 4.0, 0.01)


def _lhtan(graph: Graph, x: str) -> str:
    return _bent(graph, x, graph.clip(x, 0.0, 1.0), 0.0, 1.0, 0.001)


def _stair(graph: Graph, x: str) -> str:
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


def _hard_mish(graph: Graph, x: str) -> str:
    left = graph.clip(x, -2.0, 0.0)
    bow = graph.node("Add", graph.node("Mul", graph.node("Mul", left, left), 0.5), left)
    return graph.node("Add", graph.node("Relu", x), bow)


def _share(graph: Graph, positive: str) -> str:
    return graph.node("Div", positive, graph.node("Add", graph.sum(positive, 1), _SUM_EPS))


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
    "plse": _plse,
    "stair": _stair,
    "hardtan": lambda graph, x: graph.clip(x, -1.0, 1.0),
    "lhtan": _lhtan,
    "swish": _swish,
    "mish": _mish,
    "hard_mish": _hard_mish,
    "normalize_channels": lambda graph, x: _share(graph, graph.node("Relu", x)),
    "normalize_channels_softmax": lambda graph, x: _share(graph, graph.node("Exp", x)),
    "normalize_channels_softmax_maxval": _softmax_of_largest,
}

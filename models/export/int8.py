"""8-bit quantisation of a graph: which convolutions, which value ranges are needed, and the quantised graph.

Convolutions read 8-bit inputs (one scale and zero point per tensor) and 8-bit weights (symmetric, one scale per filter).
The last convolutions, directly before the heads, and everything after them stay in float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.onnx_graph import INPUT, Graph, Node

Ranges = Mapping[str, tuple[float, float]]
"""Lowest and highest value of each tensor, by name."""
Engine = Literal["onnxruntime", "openvino"]
"""The engine to quantise for.

onnxruntime computes an operator in 8 bits if its inputs and its output are quantised. openvino fuses activation and shortcut
into the preceding convolution, so the value between them stays in float.
"""


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """Settings of an 8-bit export.

    ranges: measured ranges of the tensors that `observable` names.
    engine: the engine that will run the model.
    report: calibration data and measured quality, for the metadata.
    """

    ranges: Ranges
    engine: Engine = "onnxruntime"
    report: Mapping[str, Any] = field(default_factory=dict)


_WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Operators that only select values of their data inputs -> the number of data inputs; None: all inputs.
_SELECTING = {"Concat": None, "MaxPool": 1, "Slice": 1, "Resize": 1}
_LEVELS, _WEIGHT_LEVELS = 255, 127


@dataclass(frozen=True)
class Quantizable:
    """The part of a graph that can be quantised.

    convolutions: nodes that will compute in 8 bits.
    groups: their input tensors, and the tensors that those are selected from; a group shares one scale.
    inner: other outputs of convolutions.
    """

    convolutions: tuple[Node, ...]
    groups: tuple[tuple[str, ...], ...]
    inner: tuple[str, ...]

    @classmethod
    def of(cls, graph: Graph, outputs: tuple[str, ...]) -> Quantizable:
        makers = {node.outputs[0]: node for node in graph.nodes}
        last = _last_with_weights(makers, outputs)
        convolutions = tuple(
            node
            for node in graph.nodes
            if node.op == "Conv" and node.inputs[1] in graph.constants and node.name not in last
        )
        owner: dict[str, str] = {}  # union-find

        def find(name: str) -> str:
            while owner.setdefault(name, name) != name:
                name = owner[name]
            return name

        waiting, seen = [node.inputs[0] for node in convolutions], set()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            find(name)
            for source in _selected_from(makers.get(name)):
                owner[find(source)] = find(name)
                waiting.append(source)
        groups: dict[str, list[str]] = {}
        for name in (name for node in graph.nodes for name in (*node.inputs, *node.outputs)):
            if name in seen:
                seen.remove(name)
                groups.setdefault(find(name), []).append(name)
        grouped = set(owner)
        inner = tuple(node.outputs[0] for node in convolutions if node.outputs[0] not in grouped)
        return cls(convolutions, tuple(map(tuple, groups.values())), inner)

    @property
    def observed(self) -> tuple[str, ...]:
        """The tensors whose ranges must be measured."""
        return (*(name for group in self.groups for name in group if name != INPUT), *self.inner)


def _last_with_weights(makers: Mapping[str, Node], outputs: tuple[str, ...]) -> set[str]:
    """Names of the nodes with weights that reach an output without passing through another such node."""
    waiting, seen, last = list(outputs), set(outputs), set()
    while waiting:
        node = makers.get(waiting.pop())
        if node is None:
            continue
        if node.op in _WITH_WEIGHTS:
            last.add(node.name)
            continue
        waiting += set(node.inputs) - seen
        seen.update(node.inputs)
    return last


def _selected_from(node: Node | None) -> tuple[str, ...]:
    if node is None or node.op not in _SELECTING:
        return ()
    return node.inputs[: _SELECTING[node.op]]


def quantize(graph: Graph, outputs: tuple[str, ...], options: Quantization) -> None:
    """Quantise `graph` in place."""
    part, engine = Quantizable.of(graph, outputs), options.engine
    ranges = {INPUT: (0.0, 1.0), **options.ranges}
    grids: dict[str, Grid] = {}
    for group in part.groups:
        low, high = (extreme(ranges[name][side] for name in group) for side, extreme in enumerate((min, max)))
        grids.update(dict.fromkeys(group, Grid.of(low, high)))
    inputs = {node.name: grids[node.inputs[0]] for node in part.convolutions}
    if engine == "openvino":
        makers = {node.outputs[0]: node for node in graph.nodes}
        grids = {name: grid for name, grid in grids.items() if not _selected_from(makers.get(name))}
    else:
        grids |= {name: Grid.of(*ranges[name]) for name in part.inner}
    nodes, graph.nodes = graph.nodes, []
    renamed = {INPUT: _rounded(graph, INPUT, grids[INPUT])} if INPUT in grids else {}
    for node in nodes:
        operands = [renamed.get(name, name) for name in node.inputs]
        if node.name in inputs:
            operands[1:] = _weights(graph, operands[1:], inputs[node.name], engine)
        graph.nodes.append(replace(node, inputs=tuple(operands)))
        renamed.update({name: _rounded(graph, name, grids[name]) for name in node.outputs if name in grids})


@dataclass(frozen=True)
class Grid:
    """The 256 values of a quantised tensor: (0 to 255 - zero) * scale."""

    scale: float
    zero: int

    @classmethod
    def of(cls, low: float, high: float) -> Grid:
        """The grid from `low` to `high`, which contains 0."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / _LEVELS or 1.0
        return cls(scale, round(-low / scale))


def _rounded(graph: Graph, name: str, grid: Grid) -> str:
    """Add nodes that round a tensor to its grid."""
    scale, zero = graph.scales(grid.scale), graph.fixed(np.array(grid.zero, np.uint8))
    whole = graph.node("QuantizeLinear", name, scale, zero)
    return graph.node("DequantizeLinear", whole, scale, zero)


def _weights(graph: Graph, operands: list[str], grid: Grid, engine: Engine) -> list[str]:
    """Quantised weights of a convolution, and its biases if it has any; these are quantised for `onnxruntime` only."""
    weights, *others = (graph.constants[name].astype(np.float64) for name in operands)
    scales = np.abs(weights).reshape(len(weights), -1).max(1) / _WEIGHT_LEVELS
    if others:  # a bias, in units of input scale times weight scale, must fit into 32 bits
        scales = np.maximum(scales, np.abs(others[0]) / grid.scale / 2**30)
    scales[scales == 0] = 1.0
    whole = np.rint(weights / scales.reshape(-1, 1, 1, 1)).clip(-_WEIGHT_LEVELS, _WEIGHT_LEVELS)
    result = [_dequantized(graph, whole.astype(np.int8), scales)]
    if others and engine == "onnxruntime":
        biases = np.rint(others[0] / scales / grid.scale).astype(np.int32)
        return [*result, _dequantized(graph, biases, scales * grid.scale)]
    return result + operands[1:]


def _dequantized(graph: Graph, whole: NDArray[np.generic], scales: NDArray[np.float64]) -> str:
    """Multiply the integers by the scale of their filter."""
    zeros = np.zeros(len(whole), whole.dtype)
    return graph.node("DequantizeLinear", graph.fixed(whole), graph.scales(scales), graph.fixed(zeros), axis=0)

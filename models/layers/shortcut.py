"""[shortcut]: adds earlier outputs to the previous layer, optionally with learned weights (shortcut_layer.c, blas.c)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.activations import Activation, activation_option
from models.layers.base import Layer, LayerCost, LayerSection, Shape, Site, Stored, absolute
from models.onnx_graph import Graph
from utils.options import option

_SUM_EPS = 1e-4  # blas.c shortcut_multilayer_cpu


@dataclass(frozen=True, kw_only=True)
class ShortcutSection(LayerSection):
    """Adds earlier outputs to the previous layer, optionally with learned weights (shortcut_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("shortcut",)

    froms: tuple[int, ...] = option(
        (), "layers to add to the previous one (negative: counted back from here)", key="from"
    )
    activation: str = activation_option("linear", "activation function of the sum")
    weights_type: str = option(
        "none", "learned weights of the inputs", choices=("none", "per_feature", "per_layer", "per_channel")
    )
    weights_normalization: str = option(
        "none", "how the weights are normalised to a sum of one", choices=("none", "relu", "avg_relu", "softmax")
    )

    @property
    def weighted(self) -> bool:
        return self.weights_type != "none"

    def sources(self, index: int) -> tuple[int, ...]:
        return (index - 1, *(absolute(index, layer) for layer in self.froms))

    def weights_shape(self, site: Site) -> tuple[int, int]:
        """Shape of the learned weights: (inputs, channels or 1)."""
        return len(site.inputs), site.input.channels if self.weights_type == "per_channel" else 1

    def shape(self, site: Site) -> Shape:
        if not self.froms:
            raise site.error("from is missing, expected the layers to add")
        if self.weighted and self.weights_normalization == "none":
            raise site.error("weights_type needs weights_normalization=relu or softmax", "weights_type")
        for index, shape in zip(self.froms, site.inputs[1:], strict=True):
            if not _compatible(site.input, shape) or (self.weighted and not _same_size(site.input, shape)):
                text = f"layer {index} has size {shape}, expected that of the previous layer, {site.input}"
                raise site.error(text, "from")
        return site.input

    def detail(self, site: Site) -> str:
        sources = ", ".join(map(str, self.sources(site.index)[1:]))
        text = f"layers {sources}" if len(self.froms) > 1 else f"layer {sources}"
        text += f" {self.activation}" if self.activation != "linear" else ""
        return f"{text} {self.weights_type} {self.weights_normalization}" if self.weighted else text

    def cost(self, site: Site) -> LayerCost:
        operations = float(site.input.outputs * len(self.froms) * (2 if self.weighted else 1))
        inputs, channels = self.weights_shape(site)
        return LayerCost(
            operations=operations, elementwise=operations, parameters=inputs * channels if self.weighted else 0
        )

    def build(self, site: Site) -> Shortcut:
        return Shortcut(self, site)


def _same_size(one: Shape, other: Shape) -> bool:
    return (one.height, one.width) == (other.height, other.width)


def _compatible(one: Shape, other: Shape) -> bool:
    """Whether width and height are equal, or differ by one common integer factor."""
    for large, small in ((one, other), (other, one)):
        if large.height % small.height == 0 and large.width % small.width == 0:
            return large.height // small.height == large.width // small.width
    return False


class Shortcut(Layer):
    """Inputs (n, c_i, h_i, w_i), output (n, c_0, h_0, w_0).

    Channels that only the first input has are left unchanged, and extra channels of other inputs are ignored. Inputs of
    another size are aligned as in blas.c shortcut_cpu: of a larger input, every s-th row and column is added; a smaller input
    is added to every s-th row and column. (The original still has that function, but aborts instead of calling it.)
    """

    def __init__(self, section: ShortcutSection, site: Site) -> None:
        super().__init__()
        shape = section.weights_shape(site)
        self.weights = nn.Parameter(torch.ones(shape)) if section.weighted else None
        self.softmax = section.weights_normalization == "softmax"
        self.activate = Activation(section.activation, owned=True)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        if self.weights is not None:
            return self.activate(self._weighted(x, others))
        y = _add(x, others[0], owned=False)
        for other in others[1:]:
            y = _add(y, other, owned=not y.requires_grad)
        return self.activate(y)

    def _weighted(self, x: Tensor, others: tuple[Tensor, ...]) -> Tensor:
        factors = _Normalized.apply(self.weights, self.softmax).to(x.dtype)[:, :, None, None]
        y = x * factors[0]
        for factor, other in zip(factors[1:], others, strict=True):
            common = min(x.shape[1], other.shape[1])
            y = _add(y, other[:, :common] * (factor[:common] if factor.shape[0] > 1 else factor), owned=False)
        return y

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        x, *others = inputs
        if self.weights is None:
            for other, shape in zip(others, site.inputs[1:], strict=True):
                x = graph.node("Add", x, _export_aligned(graph, other, shape, site.input))
            return self.activate.export(graph, x)
        factors = _Normalized.apply(self.weights.detach(), self.softmax)[:, None, :, None, None]
        y = graph.node("Mul", x, factors[0])
        for factor, other, shape in zip(factors[1:], others, site.inputs[1:], strict=True):
            common = Shape(min(shape.channels, site.input.channels), shape.height, shape.width)
            part = graph.node("Mul", _export_aligned(graph, other, shape, common), factor[:, : common.channels])
            y = graph.node("Add", y, _export_aligned(graph, part, common, site.input))
        return self.activate.export(graph, y)

    def stored(self) -> Iterator[Stored]:
        if self.weights is not None:
            yield Stored(self.weights, "shortcut_weights")


class _Normalized(torch.autograd.Function):
    """Normalises weights (inputs, channels) so that they sum to one over the inputs.

    The gradient of a raw weight is that of the normalised weight w times a factor: w for relu, w (1 - w) for softmax
    (blas_kernels.cu backward_shortcut_multilayer_kernel; in the CPU build the factor is 1).
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, softmax: bool) -> Tensor:
        positive = torch.exp(weights - weights.amax(0)) if softmax else F.relu(weights)
        normalized = positive / (positive.sum(0) + _SUM_EPS)
        ctx.save_for_backward(normalized * (1 - normalized) if softmax else normalized)
        return normalized

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return grad * factor, None


def _add(x: Tensor, other: Tensor, *, owned: bool) -> Tensor:
    """Add `other` to x where the two overlap; owned: x may be overwritten."""
    if x.shape == other.shape:
        return x.add_(other) if owned else x + other
    common = min(x.shape[1], other.shape[1])
    shrink, spread = max(other.shape[2] // x.shape[2], 1), max(x.shape[2] // other.shape[2], 1)
    y = x if owned else x.clone()
    y[:, :common, ::spread, ::spread] += other[:, :common, ::shrink, ::shrink]
    return y


def _export_aligned(graph: Graph, other: str, shape: Shape, wanted: Shape) -> str:
    """Align `other` with the shape of the tensor that it is added to; see _add."""
    if shape == wanted:
        return other
    if shape.channels > wanted.channels:
        other = graph.slice(other, 1, 0, wanted.channels)
    shrink, spread = max(shape.height // wanted.height, 1), max(wanted.height // shape.height, 1)
    if shrink > 1:
        other = graph.slice(graph.slice(other, 2, 0, None, shrink), 3, 0, None, shrink)
    common = min(shape.channels, wanted.channels)
    if spread > 1:
        ones = np.ones((common, 1, 1, 1))
        steps, more = [spread] * 2, [spread - 1] * 2
        other = graph.node("ConvTranspose", other, ones, strides=steps, output_padding=more, group=common)
    missing = wanted.channels - common
    return graph.pad(other, (0, 0, 0, 0), (0, missing, 0, 0)) if missing else other

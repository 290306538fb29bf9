"""[connected]: every output reads every input (connected_layer.c)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.activations import Activation, activation_option
from models.batchnorm import BatchNorm
from models.layers.base import (
    LayerCost,
    LayerSection,
    Shape,
    Site,
    Stored,
    WeightedLayer,
    initial_weights,
    normalization_tensors,
)
from models.onnx_graph import Graph
from utils.options import option

MOMENTUM = 0.05  # connected_layer.c forward_connected_layer; convolutions use another value


@dataclass(frozen=True, kw_only=True)
class ConnectedSection(LayerSection):
    """A fully connected layer: every output reads every input (connected_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("connected", "conn")

    output: int = option(1, "number of outputs", least=1)
    activation: str = activation_option("logistic", "activation function")
    batch_normalize: bool = option(False, "batch normalisation before the activation")

    def shape(self, site: Site) -> Shape:
        return Shape(self.output, 1, 1)

    def detail(self, site: Site) -> str:
        return f"bn {self.activation}" if self.batch_normalize else self.activation

    def cost(self, site: Site) -> LayerCost:
        return connected_cost(site.input.outputs, self.output, self.batch_normalize and not self.dontloadscales)

    def build(self, site: Site) -> Connected:
        return Connected(
            site.input.outputs, self.output, self.activation, self.batch_normalize, load_scales=not self.dontloadscales
        )


def connected_cost(inputs: int, outputs: int, scales: bool) -> LayerCost:
    """Cost of a connected layer, for which the original counts no operations; scales: whether the file holds scales too."""
    weights = inputs * outputs
    return LayerCost(
        parameters=weights + outputs * (4 if scales else 1),
        weights=weights,
        memory_access=inputs + outputs + weights,
    )


class Connected(WeightedLayer):
    """Input (n, ...) of any shape, output (n, outputs, 1, 1)."""

    def __init__(
        self, inputs: int, outputs: int, activation: str, batch_normalize: bool, *, load_scales: bool = True
    ) -> None:
        super().__init__()
        self.inputs, self.load_scales = inputs, load_scales
        self.weights = nn.Parameter(initial_weights((outputs, inputs), inputs))  # make_connected_layer
        self.norm = BatchNorm(outputs, MOMENTUM) if batch_normalize else None
        self.biases = None if self.norm else nn.Parameter(torch.zeros(outputs))
        self.activate = Activation(activation, owned=True)

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x.flatten(1), self.weights, self.biases)[:, :, None, None]
        return self.activate(y if self.norm is None else self.norm(y))

    def stored(self) -> Iterator[Stored]:
        yield Stored(self.own_biases, "biases")
        yield Stored(self.weights, "weights", self.inputs, legacy_transposed=True)
        if self.load_scales:
            yield from normalization_tensors(self.norm)

    def of_zeros(self) -> Tensor:
        """Output (1, outputs, 1, 1) for an input of zeros."""
        with torch.no_grad():
            return self(torch.zeros(1, self.inputs, 1, 1))

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        layer = self.folded()
        x = inputs[0]
        if (site.input.height, site.input.width) != (1, 1):
            site.require_fixed_size(graph, "every output reads every input")
            x = graph.reshape(x, 0, self.inputs, 1, 1)
        return self.activate.export(graph, graph.node("Conv", x, layer.weights[:, :, None, None], layer.own_biases))

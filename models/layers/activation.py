"""[activation]: a function applied to the layer before (activation_layer.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from models.activations import Activation, activation_option
from models.layers.base import Layer, LayerSection, Shape, Site
from models.onnx_graph import Graph


@dataclass(frozen=True, kw_only=True)
class ActivationSection(LayerSection):
    names: ClassVar[tuple[str, ...]] = ("activation",)

    activation: str = activation_option("linear", "the function")

    def shape(self, site: Site) -> Shape:
        return site.input

    def build(self, site: Site) -> ActivationLayer:
        return ActivationLayer(self.activation)


class ActivationLayer(Layer):
    """Input and output (n, c, h, w)."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.activate = Activation(name)

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(x)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        return self.activate.export(graph, inputs[0])

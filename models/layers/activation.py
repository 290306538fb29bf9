"""[activation]: a function applied to the previous layer (activation_layer.c); [empty], [silence]: the identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from models.activations import Activation, activation_option
from models.layers.base import Layer, LayerSection, Site
from models.onnx_graph import Graph


@dataclass(frozen=True, kw_only=True)
class ActivationSection(LayerSection):
    """A function applied to the previous layer (activation_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("activation",)

    activation: str = activation_option("linear", "activation function")

    def build(self, site: Site) -> ActivationLayer:
        return ActivationLayer(self.activation)


@dataclass(frozen=True, kw_only=True)
class EmptySection(LayerSection):
    """Passes the previous layer on unchanged (parser.c parse_network_cfg_custom)."""

    names: ClassVar[tuple[str, ...]] = ("empty", "silence")

    def build(self, site: Site) -> ActivationLayer:
        return ActivationLayer("linear")


class ActivationLayer(Layer):
    """Input and output (n, c, h, w)."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.activate = Activation(name)

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(x)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        return self.activate.export(graph, inputs[0])

"""[scale_channels] and [sam]: an earlier output multiplied by the layer before (scale_channels_layer.c, sam_layer.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from models.activations import Activation, activation_option
from models.layers.base import Layer, LayerSection, Shape, Site, absolute
from models.onnx_graph import Graph
from utils.options import option


@dataclass(frozen=True, kw_only=True)
class ProductSection(LayerSection):
    """What both kinds share."""

    froms: int | None = option(None, "layer that is multiplied (negative: counted back from here)", key="from")
    activation: str = activation_option("linear", "function applied to the product")

    def sources(self, index: int) -> tuple[int, ...]:
        return (index - 1,) if self.froms is None else (index - 1, absolute(index, self.froms))

    def factor(self, site: Site) -> Shape:
        """Shape that the layer before must have."""
        raise AssertionError(f"{type(self).__name__} does not say its factor")

    def shape(self, site: Site) -> Shape:
        if self.froms is None:
            raise site.error("from is missing, expected the layer to multiply")
        if site.input != self.factor(site):
            raise site.error(
                f"layer before has size {site.input}, expected {self.factor(site)} for {site.inputs[1]}", "from"
            )
        return site.inputs[1]

    def build(self, site: Site) -> Product:
        return Product(self.activation)


@dataclass(frozen=True, kw_only=True)
class ScaleChannelsSection(ProductSection):
    names: ClassVar[tuple[str, ...]] = ("scale_channels",)

    scale_wh: bool = option(False, "one factor for each place (the layer before has 1 channel) instead of each channel")

    def factor(self, site: Site) -> Shape:
        other = site.inputs[1]
        return Shape(1, other.height, other.width) if self.scale_wh else Shape(other.channels, 1, 1)


@dataclass(frozen=True, kw_only=True)
class SamSection(ProductSection):
    names: ClassVar[tuple[str, ...]] = ("sam",)

    def factor(self, site: Site) -> Shape:
        return site.inputs[1]


class Product(Layer):
    """Inputs: factor, broadcast to (n, c, h, w) of the second; output (n, c, h, w)."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.activate = Activation(activation, owned=True)

    def forward(self, factor: Tensor, x: Tensor) -> Tensor:
        return self.activate(x * factor)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        factor, x = inputs
        return self.activate.export(graph, graph.node("Mul", x, factor))

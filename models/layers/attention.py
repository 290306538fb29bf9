"""Attention: [scale_channels] and [sam] multiply an earlier output by the previous layer; [se] is a whole block."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from models.activations import Activation, activation_option
from models.layers.base import Layer, LayerCost, LayerSection, Shape, Site, Stored, absolute, total
from models.layers.connected import Connected, connected_cost
from models.onnx_graph import Graph
from utils.options import option


@dataclass(frozen=True, kw_only=True)
class ProductSection(LayerSection):
    """Options shared by [scale_channels] and [sam]."""

    froms: int | None = option(None, "layer to multiply (negative: counted back from here)", key="from")
    activation: str = activation_option("linear", "activation function of the product")

    def sources(self, index: int) -> tuple[int, ...]:
        return (index - 1,) if self.froms is None else (index - 1, absolute(index, self.froms))

    def factor(self, site: Site) -> Shape:
        """Shape required of the previous layer."""
        raise AssertionError(f"{type(self).__name__} lacks factor()")

    def shape(self, site: Site) -> Shape:
        if self.froms is None:
            raise site.error("from is missing, expected the layer to multiply")
        if site.input != self.factor(site):
            text = f"previous layer has size {site.input}, expected {self.factor(site)} for {site.inputs[1]}"
            raise site.error(text, "from")
        return site.inputs[1]

    def build(self, site: Site) -> Product:
        return Product(self.activation)


@dataclass(frozen=True, kw_only=True)
class ScaleChannelsSection(ProductSection):
    """An earlier output with each channel multiplied by a factor from the previous layer (scale_channels_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("scale_channels",)

    scale_wh: bool = option(False, "one factor per position instead of per channel; the previous layer has 1 channel")

    def factor(self, site: Site) -> Shape:
        other = site.inputs[1]
        return Shape(1, other.height, other.width) if self.scale_wh else Shape(other.channels, 1, 1)


@dataclass(frozen=True, kw_only=True)
class SamSection(ProductSection):
    """Spatial attention: an earlier output multiplied by the previous layer, value by value (sam_layer.c)."""

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


@dataclass(frozen=True, kw_only=True)
class SeSection(LayerSection):
    """A whole squeeze-and-excitation block, found in cfgs of several forks (Hu et al., 2018, equations 2 to 4).

    In the original, the same block is [avgpool], two 1x1 convolutions and [scale_channels]. There is no common file format;
    here the tensors are those of two [connected] layers: biases and weights of the squeeze, then of the excitation.
    """

    names: ClassVar[tuple[str, ...]] = ("se",)

    reduction: int = option(16, "input channels per value of the squeezed vector", least=1)
    activation: str = activation_option("relu", "activation function of the squeezed vector")

    def squeezed(self, site: Site) -> int:
        return max(site.input.channels // self.reduction, 1)

    def cost(self, site: Site) -> LayerCost:
        channels, squeezed = site.input.channels, self.squeezed(site)
        return total((connected_cost(channels, squeezed, False), connected_cost(squeezed, channels, False)))

    def build(self, site: Site) -> SqueezeExcite:
        return SqueezeExcite(site.input.channels, self.squeezed(site), self.activation)


class SqueezeExcite(Layer):
    """Input and output (n, c, h, w): each channel times a factor in (0, 1) computed from the means of all channels."""

    def __init__(self, channels: int, squeezed: int, activation: str) -> None:
        super().__init__()
        self.squeeze = Connected(channels, squeezed, activation, False)
        self.excite = Connected(squeezed, channels, "logistic", False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(self.squeeze(x.mean((2, 3))))

    def stored(self) -> Iterator[Stored]:
        yield from self.squeeze.stored()
        yield from self.excite.stored()

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        flat = dataclasses.replace(site, inputs=(Shape(site.input.channels, 1, 1),))
        factor = self.squeeze.export(graph, flat, graph.node("GlobalAveragePool", inputs[0]))
        return graph.node("Mul", inputs[0], self.excite.export(graph, flat, factor))

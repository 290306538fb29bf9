"""[se], which several forks write for a whole squeeze-and-excitation block (Hu et al., 2018, equations 2 to 4).

The original spells it [avgpool], two 1x1 convolutions and [scale_channels]. There is no common file format; here the tensors
are those of the two layers as [connected]: biases and weights of the squeezing one, then of the exciting one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from models.activations import activation_option
from models.layers.base import Layer, LayerCost, LayerSection, Shape, Site, Stored, total
from models.layers.connected import Connected, connected_cost
from models.onnx_graph import Graph
from utils.options import option


@dataclass(frozen=True, kw_only=True)
class SeSection(LayerSection):
    names: ClassVar[tuple[str, ...]] = ("se",)

    reduction: int = option(
        16, "the squeezed vector has so many times fewer values than the input has channels", least=1
    )
    activation: str = activation_option("relu", "function applied to the squeezed vector")

    def shape(self, site: Site) -> Shape:
        return site.input

    def squeezed(self, site: Site) -> int:
        return max(site.input.channels // self.reduction, 1)

    def cost(self, site: Site) -> LayerCost:
        channels, squeezed = site.input.channels, self.squeezed(site)
        return total((connected_cost(channels, squeezed, False), connected_cost(squeezed, channels, False)))

    def build(self, site: Site) -> SqueezeExcite:
        return SqueezeExcite(site.input.channels, self.squeezed(site), self.activation)


class SqueezeExcite(Layer):
    """Input and output (n, c, h, w): each channel times a factor in (0, 1) computed from all channels' means."""

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

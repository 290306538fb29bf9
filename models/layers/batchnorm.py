"""[batchnorm]: batch normalisation by itself (batchnorm_layer.c)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from models.batchnorm import BatchNorm
from models.layers.base import Layer, LayerCost, LayerSection, Shape, Site, Stored
from models.onnx_graph import Graph


@dataclass(frozen=True, kw_only=True)
class BatchnormSection(LayerSection):
    names: ClassVar[tuple[str, ...]] = ("batchnorm",)

    def shape(self, site: Site) -> Shape:
        return site.input

    def cost(self, site: Site) -> LayerCost:
        return LayerCost(parameters=4 * site.input.channels)

    def build(self, site: Site) -> BatchnormLayer:
        return BatchnormLayer(site.input.channels)


class BatchnormLayer(Layer):
    """Input and output (n, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = BatchNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)

    def stored(self) -> Iterator[Stored]:
        yield Stored(self.norm.biases, "biases")
        yield Stored(self.norm.scales, "scales")
        yield Stored(self.norm.rolling_mean, "rolling_mean")
        yield Stored(self.norm.rolling_variance, "rolling_variance")

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        factor, offset = (each.view(1, -1, 1, 1) for each in self.norm.affine())
        return graph.node("Add", graph.node("Mul", inputs[0], factor), offset)

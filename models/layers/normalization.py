"""[batchnorm]: batch normalisation as a layer; [normalization]: local response normalisation (Krizhevsky et al., 2012)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from models.batchnorm import BatchNorm
from models.layers.base import Layer, LayerCost, LayerSection, Shape, Site, Stored, normalization_tensors
from models.onnx_graph import Graph
from utils.options import option


@dataclass(frozen=True, kw_only=True)
class BatchnormSection(LayerSection):
    """Batch normalisation as a layer of its own (batchnorm_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("batchnorm",)

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
        yield from normalization_tensors(self.norm)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        factor, offset = (each.view(1, -1, 1, 1) for each in self.norm.affine())
        return graph.node("Add", graph.node("Mul", inputs[0], factor), offset)


@dataclass(frozen=True, kw_only=True)
class NormalizationSection(LayerSection):
    """Local response normalisation across channels (normalization_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("normalization", "lrn")

    alpha: float = option(0.0001, "factor on the sum of squares")
    beta: float = option(0.75, "exponent of the divisor")
    kappa: float = option(1.0, "constant term of the divisor")
    size: int = option(5, "number of neighbouring channels in the sum", least=1)

    def shape(self, site: Site) -> Shape:
        if self.size // 2 >= site.input.channels:
            raise site.error(f"size={self.size} is too large for {site.input.channels} channels", "size")
        return site.input

    def build(self, site: Site) -> Normalization:
        return Normalization(self)


class Normalization(Layer):
    """y = x / (kappa + alpha * sum of squares of the neighbouring channels) ** beta on (n, c, h, w).

    forward_normalization_layer starts its running sum one channel short, so channel size / 2 is never added, yet it is
    subtracted where it leaves the window. The gradient treats the divisor as constant.
    """

    def __init__(self, section: NormalizationSection) -> None:
        super().__init__()
        self.section = section

    def forward(self, x: Tensor) -> Tensor:
        section = self.section
        squared = x.detach() ** 2
        ahead = section.size // 2
        padded = F.pad(squared, (0, 0, 0, 0, (section.size - 1) // 2, ahead))
        sums = padded.unfold(1, section.size, 1).sum(-1) - squared[:, ahead : ahead + 1]
        return x * (section.kappa + section.alpha * sums) ** -section.beta

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        """Computes the sums of squares as a product with a band matrix."""
        section, channels = self.section, site.input.channels
        place = torch.arange(channels)
        distance = place[None, :] - place[:, None]  # from the output channel to the channel summed
        ahead = section.size // 2
        band = ((distance >= -((section.size - 1) // 2)) & (distance <= ahead)).float()
        band[:, ahead] -= 1
        x = inputs[0]
        weights = (section.alpha * band)[:, :, None, None]
        divisor = graph.node("Conv", graph.node("Mul", x, x), weights, torch.full((channels,), section.kappa))
        return graph.node("Mul", x, graph.node("Pow", divisor, -section.beta))

"""[implicit] and its relatives of YOLOR: learned vectors, added to or multiplied with features (representation_layer.c).

YOLOR's own cfgs spell it [implicit_add] (starts near 0) and [implicit_mul] (starts near 1), and apply it to the layer before
by [shift_channels] (sum) and [control_channels] (product). Their weights are stored here as those of [implicit].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.layers.base import Layer, LayerCost, LayerSection, Shape, Site, Stored, absolute
from models.onnx_graph import Graph
from utils.options import option


@dataclass(frozen=True, kw_only=True)
class ImplicitSection(LayerSection):
    names: ClassVar[tuple[str, ...]] = ("implicit",)

    mean: float = option(0.0, "mean of the initial values")
    std: float = option(0.2, "largest distance of the initial values from their mean", least=0)
    filters: int = option(128, "channels", least=1)
    atoms: int = option(1, "height", least=1)

    def shape(self, site: Site) -> Shape:
        return Shape(self.filters, self.atoms, 1)

    def cost(self, site: Site) -> LayerCost:
        return LayerCost(parameters=self.filters * self.atoms)

    def build(self, site: Site) -> Implicit:
        return Implicit(self)


@dataclass(frozen=True, kw_only=True)
class ImplicitAddSection(ImplicitSection):
    names: ClassVar[tuple[str, ...]] = ("implicit_add",)

    std: float = option(0.02, "largest distance of the initial values from their mean", least=0)


@dataclass(frozen=True, kw_only=True)
class ImplicitMulSection(ImplicitAddSection):
    names: ClassVar[tuple[str, ...]] = ("implicit_mul",)

    mean: float = option(1.0, "mean of the initial values")


class Implicit(Layer):
    """The learned (filters, atoms, 1) for every image of the batch; the input gives the batch its size."""

    def __init__(self, section: ImplicitSection) -> None:
        super().__init__()
        weights = torch.empty(section.filters, section.atoms, 1).uniform_(-1, 1)
        self.weights = nn.Parameter(section.mean + section.std * weights)

    def forward(self, x: Tensor) -> Tensor:
        return self.weights.to(x.dtype).expand(x.shape[0], -1, -1, -1)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        if graph.batch is not None:
            return graph.constant(self.weights.expand(graph.batch, -1, -1, -1))
        shape = graph.concat([graph.sizes(inputs[0], 0, 1), graph.integers(self.weights.shape)], 0)
        return graph.node("Expand", graph.constant(self.weights[None]), shape)

    def stored(self) -> Iterator[Stored]:
        yield Stored(self.weights, "implicit_weights")


@dataclass(frozen=True, kw_only=True)
class ShiftChannelsSection(LayerSection):
    names: ClassVar[tuple[str, ...]] = ("shift_channels",)

    froms: int | None = option(None, "the layer that is added to the one before", key="from")

    def sources(self, index: int) -> tuple[int, ...]:
        return (index - 1,) if self.froms is None else (index - 1, absolute(index, self.froms))

    def shape(self, site: Site) -> Shape:
        if self.froms is None:
            raise site.error("from is missing, expected an implicit layer")
        if site.inputs[1] != Shape(site.input.channels, 1, 1):
            raise site.error(
                f"layer {self.froms} has size {site.inputs[1]}, expected 1x1x{site.input.channels}", "from"
            )
        return site.input

    def build(self, site: Site) -> Layer:
        return ShiftChannels()


@dataclass(frozen=True, kw_only=True)
class ControlChannelsSection(ShiftChannelsSection):
    names: ClassVar[tuple[str, ...]] = ("control_channels",)

    froms: int | None = option(None, "the layer that the one before is multiplied with", key="from")

    def build(self, site: Site) -> Layer:
        return ControlChannels()


class ShiftChannels(Layer):
    """Inputs (n, c, h, w) and (n, c, 1, 1), output their sum (n, c, h, w)."""

    def forward(self, x: Tensor, implicit: Tensor) -> Tensor:
        return x + implicit

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        return graph.node("Add", *inputs)


class ControlChannels(Layer):
    """Inputs (n, c, h, w) and (n, c, 1, 1), output their product (n, c, h, w)."""

    def forward(self, x: Tensor, implicit: Tensor) -> Tensor:
        return x * implicit

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        return graph.node("Mul", *inputs)

"""[implicit] and its variants from YOLOR: learned vectors, added to features or multiplied by them (representation_layer.c).

YOLOR's own cfgs have [implicit_add] (initialised near 0) and [implicit_mul] (near 1), and apply them to the previous layer
with [shift_channels] (sum) and [control_channels] (product). Here their weights are stored like those of [implicit].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from models.layers.base import Layer, LayerCost, LayerSection, Shape, Site, Stored, absolute
from models.onnx_graph import Graph
from utils.options import option


@dataclass(frozen=True, kw_only=True)
class ImplicitSection(LayerSection):
    """A learned vector, the implicit knowledge of YOLOR (representation_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("implicit",)

    mean: float = option(0.0, "mean of the initial values")
    std: float = option(0.2, "largest deviation of the initial values from their mean", least=0)
    filters: int = option(128, "number of channels", least=1)
    atoms: int = option(1, "number of vectors (height)", least=1)

    def shape(self, site: Site) -> Shape:
        return Shape(self.filters, self.atoms, 1)

    def cost(self, site: Site) -> LayerCost:
        return LayerCost(parameters=self.filters * self.atoms)

    def build(self, site: Site) -> Implicit:
        return Implicit(self)


@dataclass(frozen=True, kw_only=True)
class ImplicitAddSection(ImplicitSection):
    """[implicit] in YOLOR's own cfgs, for sums: initialised near 0."""

    names: ClassVar[tuple[str, ...]] = ("implicit_add",)

    std: float = option(0.02, "largest deviation of the initial values from their mean", least=0)


@dataclass(frozen=True, kw_only=True)
class ImplicitMulSection(ImplicitAddSection):
    """[implicit] in YOLOR's own cfgs, for products: initialised near 1."""

    names: ClassVar[tuple[str, ...]] = ("implicit_mul",)

    mean: float = option(1.0, "mean of the initial values")


class Implicit(Layer):
    """The learned vector (filters, atoms, 1), repeated for every image; the input only determines the batch size."""

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
    """The previous layer plus an implicit vector."""

    names: ClassVar[tuple[str, ...]] = ("shift_channels",)

    froms: int | None = option(None, "implicit layer to add to the previous one", key="from")

    def sources(self, index: int) -> tuple[int, ...]:
        return (index - 1,) if self.froms is None else (index - 1, absolute(index, self.froms))

    def detail(self, site: Site) -> str:
        return f"layer {self.sources(site.index)[1]}"

    def shape(self, site: Site) -> Shape:
        if self.froms is None:
            raise site.error("from is missing, expected an implicit layer")
        if site.inputs[1] != Shape(site.input.channels, 1, 1):
            text = f"layer {self.froms} has size {site.inputs[1]}, expected 1x1x{site.input.channels}"
            raise site.error(text, "from")
        return site.input

    def build(self, site: Site) -> ApplyImplicit:
        return ApplyImplicit("Add")


@dataclass(frozen=True, kw_only=True)
class ControlChannelsSection(ShiftChannelsSection):
    """The previous layer times an implicit vector."""

    names: ClassVar[tuple[str, ...]] = ("control_channels",)

    froms: int | None = option(None, "implicit layer to multiply the previous one by", key="from")

    def build(self, site: Site) -> ApplyImplicit:
        return ApplyImplicit("Mul")


class ApplyImplicit(Layer):
    """Inputs (n, c, h, w) and (n, c, 1, 1), output their sum or product (n, c, h, w)."""

    def __init__(self, operation: Literal["Add", "Mul"]) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor, implicit: Tensor) -> Tensor:
        return x + implicit if self.operation == "Add" else x * implicit

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        return graph.node(self.operation, *inputs)

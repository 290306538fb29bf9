"""[empty] and [silence]: nothing, the layer before passes through (parser.c parse_network_cfg_custom)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from models.layers.base import Layer, LayerSection, Shape, Site
from models.onnx_graph import Graph


@dataclass(frozen=True, kw_only=True)
class EmptySection(LayerSection):
    names: ClassVar[tuple[str, ...]] = ("empty", "silence")

    def shape(self, site: Site) -> Shape:
        return site.input

    def build(self, site: Site) -> Empty:
        return Empty()


class Empty(Layer):
    """x to x."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        return inputs[0]

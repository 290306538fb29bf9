"""[reorg3d]: blocks of cells become channels; [reorg]: the historical version that scrambles them (blas.c reorg_cpu)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from models.layers.base import Layer, LayerSection, Shape, Site
from models.onnx_graph import Graph
from utils.options import option


@dataclass(frozen=True, kw_only=True)
class Reorg3dSection(LayerSection):
    names: ClassVar[tuple[str, ...]] = ("reorg3d",)

    stride: int = option(1, "side of the blocks", least=1)
    reverse: bool = option(False, "channels become blocks of cells")

    def shape(self, site: Site) -> Shape:
        shape, s = site.input, self.stride
        self.check(site)
        if self.reverse:
            return Shape(shape.channels // (s * s), shape.height * s, shape.width * s)
        return Shape(shape.channels * s * s, shape.height // s, shape.width // s)

    def check(self, site: Site) -> None:
        """Refuse sizes for which the original reads and writes beside its tensors."""
        # reorg_layer.c forward_reorg_layer: with reverse the blocks of the output are taken apart, not those of the input
        self.require(site, channels=self.stride**4 if self.reverse else 1, cells=1 if self.reverse else self.stride)

    def require(self, site: Site, *, channels: int, cells: int) -> None:
        shape = site.input
        if shape.channels % channels or shape.height % cells or shape.width % cells:
            need = f"channels divisible by {channels}, width and height by {cells}"
            raise site.error(f"stride={self.stride} does not fit the input {shape}, expected {need}", "stride")

    def build(self, site: Site) -> Layer:
        return Reorg3d(self.stride, self.shape(site), self.reverse)


@dataclass(frozen=True, kw_only=True)
class ReorgSection(Reorg3dSection):
    names: ClassVar[tuple[str, ...]] = ("reorg",)

    def check(self, site: Site) -> None:
        self.require(site, channels=self.stride**2, cells=1 if self.reverse else self.stride)

    def build(self, site: Site) -> Layer:
        return Reorg(self.stride, self.shape(site), self.reverse)


class Reorg3d(Layer):
    """Input (n, c, h, w), output (n, c * s * s, h / s, w / s): channel k holds cell k / c of each block of channel k % c."""

    def __init__(self, stride: int, shape: Shape, reverse: bool) -> None:
        super().__init__()
        self.stride, self.reverse, self.channels = stride, reverse, shape.channels

    def forward(self, x: Tensor) -> Tensor:
        if not self.reverse:
            return blocks_to_channels(x, self.stride)
        n, _, h, w = x.shape
        shape = (n, self.channels, h * self.stride, w * self.stride)
        return channels_to_blocks(x.reshape(shape), self.stride).reshape(shape)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        s, (h, w) = self.stride, (site.input.height, site.input.width)
        if not self.reverse:
            return graph.node("SpaceToDepth", inputs[0], blocksize=s)
        site.require_fixed_size(graph, "the tensor is regarded as one of another shape")
        shape = (0, self.channels, h * s, w * s)
        blocks = graph.node("DepthToSpace", graph.reshape(inputs[0], *shape), blocksize=s, mode="DCR")
        return graph.reshape(blocks, *shape)


class Reorg(Reorg3d):
    """The same on a tensor that is first regarded as (n, c / (s * s), h * s, w * s), and whose result is as Reorg3d's.

    reorg_old_layer.c calls reorg_cpu with the size of its input where that of the output is meant.
    """

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        s = self.stride
        if self.reverse:
            return channels_to_blocks(x, s)
        y = blocks_to_channels(x.reshape(n, c // (s * s), h * s, w * s), s)
        return y.reshape(n, self.channels, h // s, w // s)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        s, (c, h, w) = self.stride, (site.input.channels, site.input.height, site.input.width)
        if self.reverse:
            return graph.node("DepthToSpace", inputs[0], blocksize=s, mode="DCR")
        site.require_fixed_size(graph, "the tensor is regarded as one of another shape")
        blocks = graph.node("SpaceToDepth", graph.reshape(inputs[0], 0, c // (s * s), h * s, w * s), blocksize=s)
        return graph.reshape(blocks, 0, self.channels, h // s, w // s)


def blocks_to_channels(x: Tensor, s: int) -> Tensor:
    """(n, c, h * s, w * s) to (n, s * s * c, h, w), the cells of a block in front of the channels."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // s, s, w // s, s).permute(0, 3, 5, 1, 2, 4).reshape(n, s * s * c, h // s, w // s)


def channels_to_blocks(x: Tensor, s: int) -> Tensor:
    """The way back: (n, s * s * c, h, w) to (n, c, h * s, w * s)."""
    n, c, h, w = x.shape
    y = x.reshape(n, s, s, c // (s * s), h, w).permute(0, 3, 4, 1, 5, 2)
    return y.reshape(n, c // (s * s), h * s, w * s)

"""Layers without weights that change the size of the map: [upsample], [reorg3d], [reorg] and [crop]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers.base import Layer, LayerSection, Shape, Site
from models.onnx_graph import Graph
from utils.options import ignored, option

_GPU_ONLY = "acts in the original's GPU build only; here images are augmented where they are loaded"


@dataclass(frozen=True, kw_only=True)
class UpsampleSection(LayerSection):
    """Nearest-neighbour upsampling; with a negative stride, sums over squares of cells (upsample_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("upsample",)

    stride: int = option(2, "factor on width and height; negative: divide them by it")
    scale: float = option(1.0, "factor on the values")

    def origins(self, site: Site, inputs: Sequence[Sequence[int]]) -> Sequence[int]:
        return inputs[0]

    def shape(self, site: Site) -> Shape:
        shape, stride = site.input, abs(self.stride)
        if self.stride == 0:
            raise site.error("stride: 0 is out of range, expected a factor other than zero", "stride")
        if self.stride > 0:
            return Shape(shape.channels, shape.height * stride, shape.width * stride)
        if shape.height % stride or shape.width % stride:
            raise site.error(f"stride={self.stride} does not divide the input's size {shape}", "stride")
        return Shape(shape.channels, shape.height // stride, shape.width // stride)

    def build(self, site: Site) -> Upsample:
        return Upsample(self.stride, self.scale)


class Upsample(Layer):
    """Input (n, c, h, w), output (n, c, h * stride, w * stride); a negative stride divides the size and sums cells."""

    def __init__(self, stride: int, scale: float) -> None:
        super().__init__()
        self.stride, self.scale = stride, scale

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 0:
            y = F.interpolate(x, scale_factor=float(self.stride), mode="nearest") if self.stride > 1 else x
        else:
            y = F.avg_pool2d(x, -self.stride, divisor_override=1)
        return y if self.scale == 1 else y * self.scale

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        factor, y = self.scale, inputs[0]
        if self.stride > 1:
            mode = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            y = graph.node("Resize", y, "", graph.scales((1, 1, self.stride, self.stride)), **mode)
        elif self.stride < 0:
            side = -self.stride
            y = graph.node("AveragePool", y, kernel_shape=[side, side], strides=[side, side])
            factor *= side * side
        return y if factor == 1 else graph.node("Mul", y, factor)


@dataclass(frozen=True, kw_only=True)
class Reorg3dSection(LayerSection):
    """Space to depth: blocks of cells become channels (reorg_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("reorg3d",)

    stride: int = option(1, "side of the blocks", least=1)
    reverse: bool = option(False, "turn channels into blocks of cells instead")

    def shape(self, site: Site) -> Shape:
        shape, s = site.input, self.stride
        self.check(site)
        if self.reverse:
            return Shape(shape.channels // (s * s), shape.height * s, shape.width * s)
        return Shape(shape.channels * s * s, shape.height // s, shape.width // s)

    def check(self, site: Site) -> None:
        """Raise CfgError for sizes at which the original would read or write outside its tensors."""
        # reorg_layer.c forward_reorg_layer: with reverse, blocks are taken from the output instead of the input
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
    """The historical version of [reorg3d], which mixes up channels and cells (reorg_old_layer.c, blas.c reorg_cpu)."""

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
            return _blocks_to_channels(x, self.stride)
        n, _, h, w = x.shape
        shape = (n, self.channels, h * self.stride, w * self.stride)
        return _channels_to_blocks(x.reshape(shape), self.stride).reshape(shape)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        s, (h, w) = self.stride, (site.input.height, site.input.width)
        if not self.reverse:
            return graph.node("SpaceToDepth", inputs[0], blocksize=s)
        site.require_fixed_size(graph, "the tensor is reshaped")
        shape = (0, self.channels, h * s, w * s)
        blocks = graph.node("DepthToSpace", graph.reshape(inputs[0], *shape), blocksize=s, mode="DCR")
        return graph.reshape(blocks, *shape)


class Reorg(Reorg3d):
    """Applies Reorg3d to the input reshaped to (n, c / (s * s), h * s, w * s); the output has the shape of Reorg3d's.

    reorg_old_layer.c calls reorg_cpu with the size of the input where the size of the output is meant.
    """

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        s = self.stride
        if self.reverse:
            return _channels_to_blocks(x, s)
        y = _blocks_to_channels(x.reshape(n, c // (s * s), h * s, w * s), s)
        return y.reshape(n, self.channels, h // s, w // s)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        s, (c, h, w) = self.stride, (site.input.channels, site.input.height, site.input.width)
        if self.reverse:
            return graph.node("DepthToSpace", inputs[0], blocksize=s, mode="DCR")
        site.require_fixed_size(graph, "the tensor is reshaped")
        blocks = graph.node("SpaceToDepth", graph.reshape(inputs[0], 0, c // (s * s), h * s, w * s), blocksize=s)
        return graph.reshape(blocks, 0, self.channels, h // s, w // s)


def _blocks_to_channels(x: Tensor, s: int) -> Tensor:
    """(n, c, h * s, w * s) to (n, s * s * c, h, w); the position within the block is the slower channel index."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // s, s, w // s, s).permute(0, 3, 5, 1, 2, 4).reshape(n, s * s * c, h // s, w // s)


def _channels_to_blocks(x: Tensor, s: int) -> Tensor:
    """Inverse of _blocks_to_channels: (n, s * s * c, h, w) to (n, c, h * s, w * s)."""
    n, c, h, w = x.shape
    y = x.reshape(n, s, s, c // (s * s), h, w).permute(0, 3, 4, 1, 5, 2)
    return y.reshape(n, c // (s * s), h * s, w * s)


@dataclass(frozen=True, kw_only=True)
class CropSection(LayerSection):
    """A crop of the image, with values scaled to [-1, 1] (crop_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("crop",)

    crop_height: int = option(1, "height of the crop", least=1)
    crop_width: int = option(1, "width of the crop", least=1)
    flip: bool = option(False, "training: mirror half of the batches")
    noadjust: bool = option(False, "keep the values instead of computing x * 2 - 1")
    angle: float = ignored(0.0, _GPU_ONLY)
    saturation: float = ignored(1.0, _GPU_ONLY)
    exposure: float = ignored(1.0, _GPU_ONLY)
    shift: float = ignored(0.0, _GPU_ONLY)

    def shape(self, site: Site) -> Shape:
        shape = site.input
        if self.crop_height > shape.height or self.crop_width > shape.width:
            text = f"a crop of {self.crop_width}x{self.crop_height} does not fit the input {shape}"
            raise site.error(text, "crop_width")
        return Shape(shape.channels, self.crop_height, self.crop_width)

    def build(self, site: Site) -> Crop:
        return Crop(self)


class Crop(Layer):
    """Input (n, c, h, w), output (n, c, crop_height, crop_width): the centre; in training, one random crop per batch."""

    draws = True

    def __init__(self, section: CropSection) -> None:
        super().__init__()
        self.section = section

    def forward(self, x: Tensor) -> Tensor:
        section = self.section
        rows, columns = x.shape[2] - section.crop_height, x.shape[3] - section.crop_width
        top, left, flip = rows // 2, columns // 2, False
        if self.training:
            top, left = int(torch.randint(rows + 1, ())), int(torch.randint(columns + 1, ()))
            flip = section.flip and bool(torch.randint(2, ()))
        if flip:  # crop_layer.c forward_crop_layer counts the columns from the other side
            x = x.flip(3)
        y = x[:, :, top : top + section.crop_height, left : left + section.crop_width]
        return y if section.noadjust else y * 2 - 1

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        section = self.section
        site.require_fixed_size(graph, "the centre of the image is cropped")
        y = inputs[0]
        for axis, whole, part in (
            (2, site.input.height, section.crop_height),
            (3, site.input.width, section.crop_width),
        ):
            start = (whole - part) // 2
            y = graph.slice(y, axis, start, start + part)
        return y if section.noadjust else graph.node("Sub", graph.node("Mul", y, 2.0), 1.0)

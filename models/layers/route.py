"""[route]: concatenates the outputs of earlier layers, or groups of their channels (route_layer.c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from models.layers.base import Layer, LayerSection, Shape, Site, absolute
from models.onnx_graph import Graph
from utils.options import ignored, option

_STREAMS = "CUDA streams are left to PyTorch"


@dataclass(frozen=True, kw_only=True)
class RouteSection(LayerSection):
    """Concatenates the outputs of earlier layers, or groups of their channels (route_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("route",)

    layers: tuple[int, ...] = option((), "layers to concatenate (negative: counted back from here)")
    groups: int = option(1, "number of groups of channels of each input", least=1)
    group_id: int = option(0, "group to take, counted from 0", least=0)
    stream: int = ignored(-1, _STREAMS)
    wait_stream: int = ignored(-1, _STREAMS)

    @property
    def part(self) -> tuple[int, int]:
        """(number of groups per input, index of the group to take)."""
        return self.groups, self.group_id

    def sources(self, index: int) -> tuple[int, ...]:
        return tuple(absolute(index, layer) for layer in self.layers)

    def shape(self, site: Site) -> Shape:
        if not site.inputs:
            raise site.error("layers is missing, expected the layers to concatenate")
        first, (groups, group_id) = site.input, self.part
        if group_id >= groups:
            raise site.error(f"group_id={group_id} is out of range, expected below groups={groups}", "group_id")
        for index, shape in zip(self.sources(site.index), site.inputs, strict=True):
            if (shape.height, shape.width) != (first.height, first.width):
                text = f"layer {index} has size {shape}, expected {first.width}x{first.height} like the first"
                raise site.error(text, "layers")
            if shape.channels % groups:
                text = f"groups={groups} does not divide the {shape.channels} channels of layer {index}"
                raise site.error(text, "groups")
        return Shape(sum(shape.channels for shape in site.inputs) // groups, first.height, first.width)

    def origins(self, site: Site, inputs: Sequence[Sequence[int]]) -> Sequence[int]:
        groups, group_id = self.part
        taken = [channels[len(channels) // groups * group_id :][: len(channels) // groups] for channels in inputs]
        return tuple(layer for channels in taken for layer in channels)

    def detail(self, site: Site) -> str:
        groups, group_id = self.part
        text = ("layers " if len(self.layers) > 1 else "layer ") + ", ".join(map(str, self.sources(site.index)))
        return f"{text} group {group_id} of {groups}" if groups > 1 else text

    def build(self, site: Site) -> Route:
        return Route(*self.part)


@dataclass(frozen=True, kw_only=True)
class RouteLeftHalfSection(RouteSection):
    """The first half of each input's channels, found in cfgs of PyTorch ports."""

    names: ClassVar[tuple[str, ...]] = ("route_lhalf",)

    groups: int = ignored(1, "the section always takes halves")
    group_id: int = ignored(0, "the section always takes the first half")

    @property
    def part(self) -> tuple[int, int]:
        return 2, 0


class Route(Layer):
    """Inputs (n, c_i, h, w), output (n, sum of c_i / groups, h, w)."""

    def __init__(self, groups: int, group_id: int) -> None:
        super().__init__()
        self.groups, self.group_id = groups, group_id

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.groups > 1:
            inputs = tuple(x.chunk(self.groups, 1)[self.group_id] for x in inputs)
        if len(inputs) == 1:
            return inputs[0]
        if self.training and inputs[0].device.type == "cpu":
            return _Concatenation.apply(*inputs)
        return torch.cat(inputs, 1)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        if self.groups > 1:
            parts = []
            for x, shape in zip(inputs, site.inputs, strict=True):
                width = shape.channels // self.groups
                parts.append(graph.slice(x, 1, self.group_id * width, (self.group_id + 1) * width))
            inputs = tuple(parts)
        return graph.concat(inputs, 1)


class _Concatenation(torch.autograd.Function):
    """torch.cat along channels, with dense gradients. On a CPU, 16-bit operations on slices take up to 30 times as long."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        ctx.channels = [x.shape[1] for x in inputs]
        return torch.cat(inputs, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.clone() for part in grad.split(ctx.channels, 1))

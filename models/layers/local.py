"""[local]: a locally connected layer, a convolution with its own weights at every position (local_layer.c)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.activations import Activation, activation_option
from models.layers.base import Layer, LayerCost, LayerSection, Shape, Site, Stored, initial_weights, window_text
from models.onnx_graph import Graph
from utils.options import option


@dataclass(frozen=True, kw_only=True)
class LocalSection(LayerSection):
    """A locally connected layer: a convolution with its own weights at every position (local_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("local",)

    filters: int = option(1, "output channels", least=1)
    size: int = option(1, "height and width of the kernel", least=1)
    stride: int = option(1, "stride in both directions", least=1)
    pad: int = option(0, "zero padding of each side", least=0)
    activation: str = activation_option("logistic", "activation function")

    def shape(self, site: Site) -> Shape:
        # local_layer.c local_out_height reads any pad as "same size", but im2col as that many zeros; they agree for size / 2
        if self.pad and 2 * self.pad != self.size - 1:
            text = f"pad={self.pad} does not fit size={self.size}, expected 0 or {(self.size - 1) / 2:g}"
            raise site.error(text, "pad")
        reach = 1 if self.pad else self.size
        height, width = ((n - reach) // self.stride + 1 for n in (site.input.height, site.input.width))
        return Shape(self.filters, height, width)

    def detail(self, site: Site) -> str:
        return f"{window_text((self.size, self.size), (self.stride, self.stride))} {self.activation}"

    def cost(self, site: Site) -> LayerCost:
        out = self.shape(site)
        weights = out.outputs * site.input.channels * self.size * self.size
        access = out.height * out.width * (site.input.channels + out.channels) + weights
        return LayerCost(parameters=weights + out.outputs, weights=weights, memory_access=access)

    def build(self, site: Site) -> Local:
        return Local(self, site)


class Local(Layer):
    """Input (n, c, h, w), output (n, filters, h', w'); weights (h' * w', filters, c * size * size)."""

    def __init__(self, section: LocalSection, site: Site) -> None:
        super().__init__()
        self.section, self.shape = section, section.shape(site)
        self.fan_in = site.input.channels * section.size * section.size
        positions = self.shape.height * self.shape.width
        # local_layer.c make_local_layer intends this for all positions, but initialises only the first
        weights = initial_weights((positions, section.filters, self.fan_in), self.fan_in)
        self.weights = nn.Parameter(weights)
        self.biases = nn.Parameter(torch.zeros(section.filters, self.shape.height, self.shape.width))
        self.activate = Activation(section.activation, owned=True)

    def forward(self, x: Tensor) -> Tensor:
        section = self.section
        columns = F.unfold(x, section.size, 1, section.pad, section.stride)
        y = torch.einsum("pfk,nkp->nfp", self.weights, columns).view(x.shape[0], *self.biases.shape)
        return self.activate(y + self.biases)

    def stored(self) -> Iterator[Stored]:
        yield Stored(self.biases, "biases")
        yield Stored(self.weights, "weights", self.fan_in)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        """One Slice per kernel element, concatenated along the channels, then a matrix product per position."""
        section, (filters, height, width) = self.section, self.biases.shape
        site.require_fixed_size(graph, "every position has its own weights")
        border, stride = section.pad, section.stride
        x = graph.pad(inputs[0], (0, 0, border, border), (0, 0, border, border)) if border else inputs[0]
        parts = []
        for top in range(section.size):
            rows = graph.slice(x, 2, top, top + (height - 1) * stride + 1, stride)
            for left in range(section.size):
                parts.append(graph.slice(rows, 3, left, left + (width - 1) * stride + 1, stride))
        columns = graph.reshape(graph.concat(parts, 1), 0, self.fan_in, height * width)
        positions = graph.node("Transpose", columns, perm=[2, 1, 0])
        kernels = self.weights.view(height * width, filters, site.input.channels, -1).transpose(2, 3).flatten(2)
        y = graph.node("Transpose", graph.node("MatMul", kernels, positions), perm=[2, 1, 0])
        y = graph.node("Add", graph.reshape(y, 0, filters, height, width), self.biases[None])
        return self.activate.export(graph, y)

"""[local]: a convolution with weights of its own at every place (local_layer.c)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.activations import Activation, activation_option
from models.layers.base import Layer, LayerCost, LayerSection, Shape, Site, Stored, initial_weights
from models.onnx_graph import Graph
from utils.options import option


@dataclass(frozen=True, kw_only=True)
class LocalSection(LayerSection):
    names: ClassVar[tuple[str, ...]] = ("local",)

    filters: int = option(1, "output channels", least=1)
    size: int = option(1, "height and width of the kernel", least=1)
    stride: int = option(1, "step of the kernel in both directions", least=1)
    pad: int = option(0, "zeros added at each side", least=0)
    activation: str = activation_option("logistic", "function applied to the result")

    def shape(self, site: Site) -> Shape:
        # local_layer.c local_out_height takes any pad for "same size", im2col for so many zeros: they agree for size / 2
        if self.pad and 2 * self.pad != self.size - 1:
            raise site.error(
                f"pad={self.pad} does not fit size={self.size}, expected 0 or {(self.size - 1) / 2:g}", "pad"
            )
        reach = 1 if self.pad else self.size
        height, width = ((n - reach) // self.stride + 1 for n in (site.input.height, site.input.width))
        return Shape(self.filters, height, width)

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
        places = self.shape.height * self.shape.width
        # local_layer.c make_local_layer means this for all places, but sets the first place's weights only
        weights = initial_weights((places, section.filters, self.fan_in), self.fan_in)
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
        """The windows as one Slice for each element of the kernel, joined along the channels; then a product for each place."""
        section, (filters, height, width) = self.section, self.biases.shape
        site.require_fixed_size(graph, "every place has weights of its own")
        border, stride = section.pad, section.stride
        x = graph.pad(inputs[0], (0, 0, border, border), (0, 0, border, border)) if border else inputs[0]
        parts = []
        for top in range(section.size):
            rows = graph.slice(x, 2, top, top + (height - 1) * stride + 1, stride)
            for left in range(section.size):
                parts.append(graph.slice(rows, 3, left, left + (width - 1) * stride + 1, stride))
        columns = graph.reshape(graph.concat(parts, 1), 0, self.fan_in, height * width)
        places = graph.node("Transpose", columns, perm=[2, 1, 0])
        kernels = self.weights.view(height * width, filters, site.input.channels, -1).transpose(2, 3).flatten(2)
        y = graph.node("Transpose", graph.node("MatMul", kernels, places), perm=[2, 1, 0])
        y = graph.node("Add", graph.reshape(y, 0, filters, height, width), self.biases[None])
        return self.activate.export(graph, y)

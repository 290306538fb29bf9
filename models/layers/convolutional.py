"""[convolutional]: convolution, batch normalisation, activation (convolutional_layer.c)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.activations import ACTIVATIONS, Activation
from models.batchnorm import BatchNorm
from models.layers.base import Cost, Layer, LayerSection, Shape, Site, Stored, absolute, conv_output
from models.layers.packed import PackedConvolution, packing_is_possible
from utils.options import option


@dataclass(frozen=True, kw_only=True)
class ConvolutionalSection(LayerSection):
    names: ClassVar[tuple[str, ...]] = ("convolutional", "conv")

    filters: int = option(1, "output channels", least=1)
    size: int = option(1, "height and width of the kernel", least=1)
    stride: int = option(1, "step of the kernel in both directions", least=1)
    stride_x: int | None = option(None, "step along x; default stride")
    stride_y: int | None = option(None, "step along y; default stride")
    pad: bool = option(False, "pad each side by size / 2; overrides padding")
    padding: int = option(0, "zeros added at each side", least=0)
    dilation: int = option(1, "distance of the kernel's elements", least=1)
    groups: int = option(1, "the channels are divided into so many independent groups", least=1)
    batch_normalize: int = option(0, "1: batch normalisation; 2: across mini-batches", least=0, most=2)
    activation: str = option("logistic", "function applied to the result", choices=tuple(ACTIVATIONS))
    grad_centr: bool = option(False, "gradient centralisation; acts with batch_normalize and a multiple of 32 inputs")
    share_index: int | None = option(None, "use the weights of that layer (negative: counted back from here)")

    @property
    def strides_yx(self) -> tuple[int, int]:
        """Steps (y, x); a stride_x or stride_y below 1 counts as absent (parser.c parse_convolutional)."""
        return tuple(  # type: ignore[return-value]
            given if given is not None and given >= 1 else self.stride for given in (self.stride_y, self.stride_x)
        )

    @property
    def border(self) -> int:
        return self.size // 2 if self.pad else self.padding

    @property
    def spread(self) -> int:
        """Dilation in force: 1 for 1x1 kernels (parser.c parse_convolutional)."""
        return 1 if self.size == 1 else self.dilation

    def shape(self, site: Site) -> Shape:
        c = site.input.channels
        if c % self.groups or self.filters % self.groups:
            raise site.error(
                f"groups={self.groups} does not divide {c} input channels and {self.filters} filters", "groups"
            )
        stride_y, stride_x = self.strides_yx
        # The dilation is not in the formula (convolutional_layer.c convolutional_out_height).
        height = conv_output(site.input.height, self.size, stride_y, 2 * self.border)
        width = conv_output(site.input.width, self.size, stride_x, 2 * self.border)
        return Shape(self.filters, height, width)

    def detail(self, site: Site) -> str:
        stride_y, stride_x = self.strides_yx
        stride = f"{stride_x}" if stride_x == stride_y else f"{stride_x}x{stride_y}"
        groups = f" /{self.groups} groups" if self.groups > 1 else ""
        dilation = f" ({self.spread})" if self.spread > 1 else ""
        return f"{self.filters:5}  {self.size} x {self.size} / {stride}{dilation}{groups} {self.activation}"

    def cost(self, site: Site) -> Cost:
        c, out = site.input.channels, self.shape(site)
        weights = self.filters * (c // self.groups) * self.size * self.size
        shared = self.share_index is not None
        vectors = 4 if self.batch_normalize else 1
        places = out.height * out.width
        products = weights * places
        return Cost(
            operations=2.0 * products,
            parameters=0 if shared else weights + vectors * self.filters,
            weights=0 if shared else weights,
            memory_access=places * (c + self.filters) + weights,
            memory_access_bound=2 * math.sqrt(places * products) / self.size + products / places,
            io=site.input.outputs + out.outputs,
        )

    def build(self, site: Site) -> Convolutional:
        return Convolutional(self, site)


class Convolutional(Layer):
    """Input (n, c, h, w), output (n, filters, h', w')."""

    def __init__(self, section: ConvolutionalSection, site: Site) -> None:
        super().__init__()
        self.section = section
        fan_in = site.input.channels // section.groups * section.size * section.size
        self.fan_in = fan_in
        shape = (section.filters, site.input.channels // section.groups, section.size, section.size)
        # convolutional_layer.c make_convolutional_layer: uniform in +-sqrt(2 / fan_in)
        self.weights = nn.Parameter(torch.empty(shape).uniform_(-1, 1) * math.sqrt(2 / fan_in))
        self.norm = BatchNorm(section.filters) if section.batch_normalize else None
        self.biases = None if self.norm else nn.Parameter(torch.zeros(section.filters))
        self.activate = Activation(section.activation)
        self.owner = None if section.share_index is None else absolute(site.index, section.share_index)

    def connect(self, layers: Sequence[Layer]) -> None:
        """Take over the tensors of the layer that share_index names."""
        if self.owner is None:
            return
        other = layers[self.owner]
        assert isinstance(other, Convolutional)
        self.weights, self.norm, self.biases = other.weights, other.norm, other.biases

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        section = self.section
        border = section.border * section.spread
        y = F.conv2d(x, self.weights, self.biases, section.strides_yx, border, section.spread, section.groups)
        if self.norm is not None:
            y = self.norm(y)
        return self.activate(y)

    def stored(self) -> Iterator[Stored]:
        if self.owner is not None:
            return
        if self.norm is not None:
            yield Stored(self.norm.biases, "biases")
            if not self.section.dontloadscales:
                yield Stored(self.norm.scales, "scales")
                yield Stored(self.norm.rolling_mean, "rolling_mean")
                yield Stored(self.norm.rolling_variance, "rolling_variance")
        else:
            assert self.biases is not None
            yield Stored(self.biases, "biases")
        centred = self.section.grad_centr and self.norm is not None
        yield Stored(self.weights, "weights", self.fan_in, centred=centred)

    def folded(self) -> Convolutional:
        if self.norm is None:
            return self
        factor, offset = self.norm.affine()
        layer = copy.copy(self)
        layer._parameters, layer._modules = dict(self._parameters), dict(self._modules)
        layer.norm = None
        layer.weights = nn.Parameter((self.weights.double() * factor.view(-1, 1, 1, 1)).to(self.weights.dtype))
        layer.biases = nn.Parameter(offset.to(self.weights.dtype))
        return layer

    def packed(self, site: Site) -> Layer:
        if not packing_is_possible(self.weights) or self.biases is None:
            return self
        section = self.section
        border, spread = section.border * section.spread, section.spread
        geometry = ([border] * 2, list(section.strides_yx), [spread] * 2, section.groups)
        return PackedConvolution(self.weights, self.biases, self.activate, site.input, geometry)

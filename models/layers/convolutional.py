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

from models.activations import Activation, activation_option
from models.batchnorm import BatchNorm, CrossBatchNorm
from models.layers.base import (
    Layer,
    LayerCost,
    LayerSection,
    Shape,
    Site,
    Stored,
    absolute,
    conv_output,
    initial_weights,
)
from models.layers.blur import Blur, blurred, buffer_after_blur
from models.layers.convolve import (
    binarized,
    by_float32,
    export_signs,
    is_pointwise,
    lacks_instructions,
    pointwise,
    signs,
)
from models.layers.packed import PackedConvolution, packing_is_possible
from models.onnx_graph import Graph
from utils.options import ignored, option

_TIED = "ties weights to one another in the original's GPU training only; inference is the same"
_GPU_TRAINING = "an experiment in the original's GPU training only; inference is the same"
_STREAMS = "CUDA streams are PyTorch's business"


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
    groups: int = option(1, "the channels are divided into so many independent groups")
    batch_normalize: int = option(0, "1: batch normalisation; 2: over all parts of a batch", least=0, most=2)
    cbn: bool = option(False, "the same as batch_normalize=2")
    activation: str = activation_option("logistic", "function applied to the result")
    share_index: int | None = option(None, "use the weights of that layer (negative: counted back from here)")
    antialiasing: int = option(0, "blur after the convolution, which then has stride 1; 1: 3x3, 2: 2x2", least=0)
    binary: bool = option(False, "weights are reduced to a sign and one magnitude for each filter")
    xnor: bool = option(False, "weights are reduced as with binary, inputs to their signs")
    flipped: bool = option(False, "the weights file holds the weights transposed")
    grad_centr: bool = option(False, "gradient centralisation; acts with batch_normalize and a multiple of 32 inputs")
    bin_output: bool = ignored(False, "how the original's GPU build passes signs on; the values are the same")
    assisted_excitation: float = ignored(0.0, _GPU_TRAINING)
    sway: bool = ignored(False, _TIED)
    rotate: bool = ignored(False, _TIED)
    stretch: bool = ignored(False, _TIED)
    stretch_sway: bool = ignored(False, _TIED)
    angle: float = ignored(15.0, _TIED)
    coordconv: bool = ignored(False, _GPU_TRAINING)
    reverse: float = ignored(0.0, _GPU_TRAINING)
    dot: float = ignored(0.0, "has no effect in the original either")
    stream: int = ignored(-1, _STREAMS)
    wait_stream: int = ignored(-1, _STREAMS)

    @property
    def strides_yx(self) -> tuple[int, int]:
        """Steps (y, x); a stride_x or stride_y below 1 counts as absent (parser.c parse_convolutional).

        The original's CPU path overlooks stride_y for 1x1 kernels with stride_x=1; here it counts, as on its GPU path.
        """
        given = (self.stride_y, self.stride_x)
        y, x = (self.stride if value is None or value < 1 else value for value in given)
        return y, x

    @property
    def host_strides_yx(self) -> tuple[int, int]:
        """Steps of the convolution itself: 1 when the blur takes the stride."""
        return (1, 1) if self.antialiasing else self.strides_yx

    @property
    def border(self) -> int:
        return self.size // 2 if self.pad else self.padding

    @property
    def spread(self) -> int:
        """Dilation in force: 1 for 1x1 kernels (parser.c parse_convolutional)."""
        return 1 if self.size == 1 else self.dilation

    @property
    def norm_kind(self) -> int:
        return 2 if self.cbn else self.batch_normalize

    def filters_at(self, site: Site) -> int:
        return self.filters

    def groups_at(self, site: Site) -> int:
        """Groups in force: 1 with xnor (make_convolutional_layer)."""
        return 1 if self.xnor else max(self.groups, 1)

    def weights_shape(self, site: Site) -> tuple[int, int, int, int]:
        return self.filters_at(site), site.input.channels // self.groups_at(site), self.size, self.size

    def owner(self, site: Site) -> int | None:
        """Index of the layer whose weights are used."""
        return None if self.share_index is None else absolute(site.index, self.share_index)

    def shape(self, site: Site) -> Shape:
        c, filters, groups = site.input.channels, self.filters_at(site), self.groups_at(site)
        if c % groups or filters % groups:
            raise site.error(f"groups={groups} does not divide {c} input channels and {filters} filters", "groups")
        self._check_dilation(site)
        self._check_owner(site)
        return blurred(self.reported_shape(site), self.antialiasing, self.strides_yx)

    def reported_shape(self, site: Site) -> Shape:
        # The dilation is not in the formula (convolutional_layer.c convolutional_out_height).
        height, width = (
            conv_output(length, self.size, stride, 2 * self.border)
            for length, stride in zip((site.input.height, site.input.width), self.host_strides_yx, strict=True)
        )
        return Shape(self.filters_at(site), height, width)

    def _check_dilation(self, site: Site) -> None:
        """The formula without dilation must agree with what im2col_cpu_ext does with it."""
        if 2 * self.border != self.size - 1 and self.spread > 1:
            text = f"dilation={self.dilation} with size={self.size} needs an odd size and pad=1, or padding={self.size // 2}"
            raise site.error(text + "; the original computes nothing meaningful otherwise", "dilation")

    def _check_owner(self, site: Site) -> None:
        owner = self.owner(site)
        if owner is None:
            return
        place = f"share_index={self.share_index}"
        if not 0 <= owner < site.index:
            raise site.error(f"{place} is layer {owner}, expected an earlier layer", "share_index")
        step = site.earlier[owner]
        if not isinstance(step.section, ConvolutionalSection):
            raise site.error(
                f"{place} is layer {owner} [{step.raw.name}], expected a convolutional layer", "share_index"
            )
        mine, theirs = self.weights_shape(site), step.section.weights_shape(step.site)
        if mine != theirs:
            raise site.error(f"{place} has weights {_times(theirs)}, expected {_times(mine)} as here", "share_index")
        if self.norm_kind and not step.section.norm_kind:
            raise site.error(f"{place} has no batch normalisation to share", "share_index")

    def cost(self, site: Site) -> LayerCost:
        c, out = site.input.channels, self.reported_shape(site)
        weights = math.prod(self.weights_shape(site))
        shared = self.share_index is not None
        vectors = 4 if self.norm_kind and not self.dontloadscales else 1
        places = out.height * out.width
        products = weights * places
        return LayerCost(
            operations=2.0 * products / (32 if self.xnor else 1),
            parameters=0 if shared else weights + vectors * out.channels,
            weights=0 if shared else weights,
            memory_access=places * (c + out.channels) + weights,
            memory_access_bound=2 * math.sqrt(places * products) / self.size + products / places if places else 0.0,
            io=site.input.outputs + out.outputs,
        )

    def build(self, site: Site) -> Convolutional:
        return Convolutional(self, site)


def _times(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


class Convolutional(Layer):
    """Input (n, c, h, w), output (n, filters, h', w')."""

    def __init__(self, section: ConvolutionalSection, site: Site) -> None:
        super().__init__()
        self.section = section
        shape = section.weights_shape(site)
        self.groups = section.groups_at(site)
        self.fan_in = math.prod(shape[1:])
        # convolutional_layer.c make_convolutional_layer: uniform in +-sqrt(2 / fan_in)
        self.weights = nn.Parameter(initial_weights(shape, self.fan_in))
        kind = CrossBatchNorm if section.norm_kind == 2 else BatchNorm
        self.norm: BatchNorm | None = kind(shape[0]) if section.norm_kind else None
        self.biases = None if self.norm else nn.Parameter(torch.zeros(shape[0]))
        self.activate = Activation(section.activation, owned=True)
        self.blur = Blur(shape[0], section.antialiasing, section.strides_yx) if section.antialiasing else None
        self.owner = section.owner(site)

    def connect(self, layers: Sequence[Layer]) -> None:
        """Take over the tensors of the layer that share_index names."""
        if self.owner is None:
            return
        other = layers[self.owner]
        assert isinstance(other, Convolutional)
        self.weights = other.weights
        if self.norm is None:
            self.biases = other.biases if other.norm is None else other.norm.biases
        else:
            self.norm = other.norm

    def at_iteration(self, iteration: int, max_batches: int) -> None:
        if isinstance(self.norm, CrossBatchNorm):
            self.norm.start_batch()

    def forward(self, x: Tensor) -> Tensor:
        y = self._sharp(x)
        return y if self.blur is None else self.blur(y)

    def _sharp(self, x: Tensor) -> Tensor:
        if self.section.xnor and not self.training:
            return self.activate(self._bitwise(x))
        weights: Tensor = self.weights
        if self.section.binary or self.section.xnor:
            weights = binarized(weights)
        y = self._convolve(signs(x) if self.section.xnor else x, weights, self.biases)
        return self.activate(y if self.norm is None else self.norm(y))

    def _convolve(self, x: Tensor, weights: Tensor, biases: Tensor | None) -> Tensor:
        convolve = by_float32(self._products) if lacks_instructions(x) else self._products
        return convolve(x, weights, biases)

    def _products(self, x: Tensor, weights: Tensor, biases: Tensor | None) -> Tensor:
        section = self.section
        border = section.border * section.spread
        if self.training and is_pointwise(x, weights.shape[2:], section.host_strides_yx, border, self.groups):
            return pointwise(x, weights, biases)
        return F.conv2d(x, weights, biases, section.host_strides_yx, border, section.spread, self.groups)

    def _bitwise(self, x: Tensor) -> Tensor:
        """The original at inference: batch normalisation is folded in before weights are reduced to signs, and the zeros
        around the input count as -1 (forward_convolutional_layer with align_bit_weights)."""
        layer = self.folded()
        border = self.section.border * self.section.spread
        x = F.pad(signs(x), (border, border, border, border), value=-1.0)
        section = self.section
        weights = binarized(layer.weights)
        return F.conv2d(x, weights, layer.biases, section.host_strides_yx, 0, section.spread, self.groups)

    def recorded(self, output: Tensor, *inputs: Tensor) -> Tensor:
        return output if self.blur is None else buffer_after_blur(self._sharp(inputs[0]), output)

    def stored(self) -> Iterator[Stored]:
        if self.owner is not None:
            return
        biases = self.norm.biases if self.norm is not None else self.biases
        assert biases is not None
        yield Stored(biases, "biases")
        if self.norm is not None and not self.section.dontloadscales:
            yield Stored(self.norm.scales, "scales")
            yield Stored(self.norm.rolling_mean, "rolling_mean")
            yield Stored(self.norm.rolling_variance, "rolling_variance")
        centred = self.section.grad_centr and self.norm is not None
        yield Stored(self.weights, "weights", self.fan_in, transposed=self.section.flipped, centred=centred)

    def folded(self) -> Convolutional:
        if self.norm is None:
            return self
        factor, offset = self.norm.affine()
        layer = copy.copy(self)
        layer._parameters, layer._modules = dict(self._parameters), dict(self._modules)
        layer.norm = None
        weights = self.weights * factor.to(self.weights.dtype).view(-1, 1, 1, 1)
        layer.weights = nn.Parameter(weights, requires_grad=False)
        layer.biases = nn.Parameter(offset.to(self.weights.dtype), requires_grad=False)
        return layer

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        section, layer = self.section, self.folded()
        weights: Tensor = layer.weights
        x, border = inputs[0], section.border * section.spread
        if section.binary or section.xnor:
            weights = binarized(weights)
        if section.xnor:  # see _bitwise
            x = graph.pad(export_signs(graph, x), (0, 0, border, border), (0, 0, border, border), -1.0)
            border = 0
        assert layer.biases is not None
        y = graph.node(
            "Conv",
            x,
            weights,
            layer.biases,
            kernel_shape=[section.size] * 2,
            strides=list(section.host_strides_yx),
            pads=[border] * 4,
            dilations=[section.spread] * 2,
            group=self.groups,
        )
        y = self.activate.export(graph, y)
        return y if self.blur is None else self.blur.export(graph, y)

    def packed(self, site: Site) -> Layer:
        section = self.section
        plain = not (section.xnor or section.binary or section.antialiasing)
        if not plain or not packing_is_possible(self.weights) or self.biases is None:
            return self
        border, spread = section.border * section.spread, section.spread
        geometry = ([border] * 2, list(section.strides_yx), [spread] * 2, self.groups)
        return PackedConvolution(self.weights, self.biases, self.activate, site.input, geometry)


@dataclass(frozen=True, kw_only=True)
class DepthwiseSection(ConvolutionalSection):
    """The original spells it [convolutional] with as many groups as channels; `filters` is a multiple of them."""

    names: ClassVar[tuple[str, ...]] = ("depthwise", "depthwise_convolutional")

    filters: int = option(0, "output channels; default as many as the input has", least=0)
    groups: int = ignored(1, "each channel is a group of its own")

    def filters_at(self, site: Site) -> int:
        return self.filters or site.input.channels

    def groups_at(self, site: Site) -> int:
        return site.input.channels

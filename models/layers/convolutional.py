"""[convolutional] and [depthwise]: convolution, batch normalisation, activation (convolutional_layer.c)."""

from __future__ import annotations

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
    WeightedLayer,
    absolute,
    conv_output,
    initial_weights,
    normalization_tensors,
    window_text,
)
from models.layers.blur import Blur, blurred, buffer_after_blur
from models.layers.convolve import (
    binarize,
    export_sign,
    is_pointwise,
    lacks_bfloat16,
    pointwise,
    rounded_to_bfloat16,
    sign,
)
from models.onnx_graph import Graph
from utils.options import ignored, option

_TIED = "ties weights together in the original's GPU training only; inference is the same"
_GPU_TRAINING = "an experiment in the original's GPU training only; inference is the same"
_STREAMS = "CUDA streams are left to PyTorch"


@dataclass(frozen=True, kw_only=True)
class ConvolutionalSection(LayerSection):
    """Convolution, batch normalisation, activation (convolutional_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("convolutional", "conv")

    filters: int = option(1, "output channels", least=1)
    size: int = option(1, "height and width of the kernel", least=1)
    stride: int = option(1, "stride in both directions", least=1)
    stride_x: int | None = option(None, "stride along x; default stride")
    stride_y: int | None = option(None, "stride along y; default stride")
    pad: bool = option(False, "pad each side by size / 2; overrides padding")
    padding: int = option(0, "zero padding of each side", least=0)
    dilation: int = option(1, "dilation of the kernel", least=1)
    groups: int = option(1, "number of groups of channels")
    batch_normalize: int = option(
        0, "1: batch normalisation; 2: with statistics of all subdivisions of a batch", least=0, most=2
    )
    cbn: bool = option(False, "the same as batch_normalize=2")
    activation: str = activation_option("logistic", "activation function")
    share_index: int | None = option(None, "layer whose weights to share (negative: counted back from here)")
    antialiasing: int = option(0, "blur after the convolution, which then has stride 1; 1: 3x3, 2: 2x2", least=0)
    binary: bool = option(False, "reduce the weights of each filter to signs and one magnitude")
    xnor: bool = option(False, "reduce weights as with binary, and inputs to their signs")
    flipped: bool = option(False, "the weights file holds the weights transposed")
    grad_centr: bool = option(
        False, "gradient centralisation; needs batch_normalize and a multiple of 32 input channels"
    )
    bin_output: bool = ignored(False, "changes how the original's GPU build passes signs on; the values are the same")
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
        """Strides (y, x); stride_x or stride_y below 1 counts as absent (parser.c parse_convolutional).

        The original's CPU path ignores stride_y for 1x1 kernels with stride_x=1; here it counts, as on its GPU path.
        """
        given = (self.stride_y, self.stride_x)
        y, x = (self.stride if value is None or value < 1 else value for value in given)
        return y, x

    @property
    def host_strides_yx(self) -> tuple[int, int]:
        """Strides (y, x) of the convolution itself: 1 if the blur applies the stride."""
        return (1, 1) if self.antialiasing else self.strides_yx

    @property
    def border(self) -> int:
        """Padding per side, before dilation."""
        return self.size // 2 if self.pad else self.padding

    @property
    def spread(self) -> int:
        """Effective dilation: 1 for 1x1 kernels (parser.c parse_convolutional)."""
        return 1 if self.size == 1 else self.dilation

    @property
    def norm_kind(self) -> int:
        return 2 if self.cbn else self.batch_normalize

    def filters_at(self, site: Site) -> int:
        return self.filters

    def groups_at(self, site: Site) -> int:
        """Effective number of groups: 1 with xnor (make_convolutional_layer)."""
        return 1 if self.xnor else max(self.groups, 1)

    def weights_shape(self, site: Site) -> tuple[int, int, int, int]:
        return self.filters_at(site), site.input.channels // self.groups_at(site), self.size, self.size

    def owner(self, site: Site) -> int | None:
        """Index of the layer whose weights this layer shares; None if it has its own."""
        return None if self.share_index is None else absolute(site.index, self.share_index)

    def shape(self, site: Site) -> Shape:
        c, filters, groups = site.input.channels, self.filters_at(site), self.groups_at(site)
        if c % groups or filters % groups:
            raise site.error(f"groups={groups} does not divide {c} input channels and {filters} filters", "groups")
        self._check_dilation(site)
        self._check_owner(site)
        return blurred(self.reported_shape(site), self.antialiasing, self.strides_yx)

    def reported_shape(self, site: Site) -> Shape:
        # This formula ignores dilation (convolutional_layer.c convolutional_out_height).
        height, width = (
            conv_output(length, self.size, stride, 2 * self.border)
            for length, stride in zip((site.input.height, site.input.width), self.host_strides_yx, strict=True)
        )
        return Shape(self.filters_at(site), height, width)

    def _check_dilation(self, site: Site) -> None:
        """Require that the output size, computed without dilation, matches what im2col_cpu_ext produces with it."""
        if 2 * self.border != self.size - 1 and self.spread > 1:
            text = f"dilation={self.dilation} with size={self.size} needs an odd size and pad=1, or padding={self.size // 2}"
            raise site.error(text + "; otherwise the original's output is meaningless", "dilation")

    def _check_owner(self, site: Site) -> None:
        owner = self.owner(site)
        if owner is None:
            return
        place = f"share_index={self.share_index}"
        if not 0 <= owner < site.index:
            raise site.error(f"{place} is layer {owner}, expected an earlier layer", "share_index")
        step = site.earlier[owner]
        if not isinstance(step.section, ConvolutionalSection):
            text = f"{place} is layer {owner} [{step.raw.name}], expected a convolutional layer"
            raise site.error(text, "share_index")
        mine, theirs = (
            "x".join(map(str, each)) for each in (self.weights_shape(site), step.section.weights_shape(step.site))
        )
        if mine != theirs:
            raise site.error(f"{place} has weights {theirs}, expected {mine} as here", "share_index")
        if self.norm_kind and not step.section.norm_kind:
            raise site.error(f"{place} has no batch normalisation to share", "share_index")

    def detail(self, site: Site) -> str:
        groups, owner = self.groups_at(site), self.owner(site)
        parts = (
            window_text((self.size, self.size), self.strides_yx),
            ("", "bn", "cbn")[self.norm_kind],
            self.activation,
            f"groups {groups}" if groups > 1 else "",
            f"dilation {self.spread}" if self.spread > 1 else "",
            f"weights of {owner}" if owner is not None else "",
        )
        return " ".join(part for part in parts if part)

    def cost(self, site: Site) -> LayerCost:
        c, out = site.input.channels, self.reported_shape(site)
        weights = math.prod(self.weights_shape(site))
        shared = self.share_index is not None
        vectors = 4 if self.norm_kind and not self.dontloadscales else 1
        positions = out.height * out.width
        products = weights * positions
        bound = 2 * math.sqrt(positions * products) / self.size + products / positions if positions else 0.0
        return LayerCost(
            operations=2.0 * products / (32 if self.xnor else 1),
            parameters=0 if shared else weights + vectors * out.channels,
            weights=0 if shared else weights,
            memory_access=positions * (c + out.channels) + weights,
            memory_access_bound=bound,
            io=site.input.outputs + out.outputs,
        )

    def build(self, site: Site) -> Convolutional:
        return Convolutional(self, site)


@dataclass(frozen=True, kw_only=True)
class DepthwiseSection(ConvolutionalSection):
    """Depthwise convolution: a [convolutional] with as many groups as input channels; `filters` is a multiple of these."""

    names: ClassVar[tuple[str, ...]] = ("depthwise", "depthwise_convolutional")

    filters: int = option(0, "output channels; default as many as the input has", least=0)
    groups: int = ignored(1, "each channel is a group of its own")

    def filters_at(self, site: Site) -> int:
        return self.filters or site.input.channels

    def groups_at(self, site: Site) -> int:
        return site.input.channels


class Convolutional(WeightedLayer):
    """Input (n, c, h, w), output (n, filters, h', w')."""

    def __init__(self, section: ConvolutionalSection, site: Site) -> None:
        super().__init__()
        self.section = section
        shape = section.weights_shape(site)
        self.groups = section.groups_at(site)
        self.padding = section.border * section.spread
        self.fan_in = math.prod(shape[1:])
        self.weights = nn.Parameter(initial_weights(shape, self.fan_in))
        kind = CrossBatchNorm if section.norm_kind == 2 else BatchNorm
        self.norm = kind(shape[0]) if section.norm_kind else None
        self.biases = None if self.norm else nn.Parameter(torch.zeros(shape[0]))
        self.activate = Activation(section.activation, owned=True)
        self.blur = Blur(shape[0], section.antialiasing, section.strides_yx) if section.antialiasing else None
        self.owner = section.owner(site)

    def connect(self, layers: Sequence[Layer]) -> None:
        """Share the tensors of the layer given by share_index."""
        if self.owner is None:
            return
        other = layers[self.owner]
        assert isinstance(other, Convolutional)
        self.weights = other.weights
        if self.norm is None:
            self.biases = other.own_biases
        else:
            self.norm = other.norm

    def at_iteration(self, iteration: int, max_batches: int) -> None:
        if isinstance(self.norm, CrossBatchNorm):
            self.norm.start_batch()

    def forward(self, x: Tensor) -> Tensor:
        y = self._sharp(x)
        return y if self.blur is None else self.blur(y)

    def _sharp(self, x: Tensor) -> Tensor:
        """The output before the blur."""
        if self.section.xnor and not self.training:
            return self.activate(self._xnor(x))
        weights: Tensor = self.weights
        if self.section.binary or self.section.xnor:
            weights = binarize(weights)
        convolve = rounded_to_bfloat16(self._convolve) if lacks_bfloat16(x) else self._convolve
        y = convolve(sign(x) if self.section.xnor else x, weights, self.biases)
        return self.activate(y if self.norm is None else self.norm(y))

    def _convolve(self, x: Tensor, weights: Tensor, biases: Tensor | None) -> Tensor:
        strides_yx, padding = self.section.host_strides_yx, self.padding
        if self.training and self.section.size == 1 and strides_yx != (1, 1):
            # With some numbers of threads, oneDNN writes past its buffer in the gradient of such weights.
            x = F.pad(x, [padding] * 4)[:, :, :: strides_yx[0], :: strides_yx[1]].clone()
            strides_yx, padding = (1, 1), 0
        if self.training and is_pointwise(x, weights.shape[2:], strides_yx, padding, self.groups):
            return pointwise(x, weights, biases)
        return F.conv2d(x, weights, biases, strides_yx, padding, self.section.spread, self.groups)

    def _xnor(self, x: Tensor) -> Tensor:
        """The original's inference: batch normalisation is folded in before the weights are reduced to signs, and padding
        counts as -1 (forward_convolutional_layer with align_bit_weights)."""
        section, layer = self.section, self.folded()
        x = F.pad(sign(x), [self.padding] * 4, value=-1.0)
        weights = binarize(layer.weights)
        return F.conv2d(x, weights, layer.biases, section.host_strides_yx, 0, section.spread, self.groups)

    def recorded(self, output: Tensor, *inputs: Tensor) -> Tensor:
        return output if self.blur is None else buffer_after_blur(self._sharp(inputs[0]), output)

    def stored(self) -> Iterator[Stored]:
        if self.owner is not None:
            return
        yield Stored(self.own_biases, "biases")
        if not self.section.dontloadscales:
            yield from normalization_tensors(self.norm)
        centred = self.section.grad_centr and self.norm is not None
        yield Stored(self.weights, "weights", self.fan_in, transposed=self.section.flipped, centred=centred)

    def of_zeros(self) -> Tensor:
        """Output (1, filters, 1, 1) for an input of zeros, the same at every position."""
        channels = self.weights.shape[1] * self.groups
        with torch.no_grad():
            return self(torch.zeros(1, channels, 1, 1))[:, :, :1, :1]

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        section, layer = self.section, self.folded()
        weights: Tensor = layer.weights
        x, padding = inputs[0], self.padding
        if section.binary or section.xnor:
            weights = binarize(weights)
        if section.xnor:  # see _xnor
            x = graph.pad(export_sign(graph, x), (0, 0, padding, padding), (0, 0, padding, padding), -1.0)
            padding = 0
        y = graph.node(
            "Conv",
            x,
            weights,
            layer.own_biases,
            kernel_shape=[section.size] * 2,
            strides=list(section.host_strides_yx),
            pads=[padding] * 4,
            dilations=[section.spread] * 2,
            group=self.groups,
        )
        y = self.activate.export(graph, y)
        return y if self.blur is None else self.blur.export(graph, y)

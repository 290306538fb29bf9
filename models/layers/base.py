"""The contract of a layer type.

A layer type has two classes in one file: a frozen `XSection` with the options, which answers every question that needs no
tensors (sources, shape, cost), and a module `X`, which computes and lists its stored tensors. No code outside that file
checks the type of a layer.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from models.batchnorm import BatchNorm
from models.onnx_graph import Graph
from utils.cfg import RawSection
from utils.errors import CfgError
from utils.net_options import NetSection
from utils.options import Options, option

StoredKind = Literal[
    "biases", "scales", "rolling_mean", "rolling_variance", "weights", "shortcut_weights", "implicit_weights"
]
DECAYED_KINDS = frozenset({"weights", "shortcut_weights", "implicit_weights"})

MAX_OUTPUTS = 2**31 - 1  # the original counts a layer's outputs and weights in an int


@dataclass(frozen=True)
class Shape:
    """Shape of one image's tensor between layers; a flat vector of n values is (n, 1, 1)."""

    channels: int
    height: int
    width: int

    @property
    def outputs(self) -> int:
        return self.channels * self.height * self.width

    @property
    def size_wh(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def hwc(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.channels}"


@dataclass(frozen=True)
class Site:
    """A layer's place in the network: everything that it may know about its surroundings.

    inputs: shapes of its sources, in the order of `sources`.
    earlier: the steps before it, at positions 0 to index - 1.
    """

    index: int
    raw: RawSection
    net: NetSection
    inputs: tuple[Shape, ...]
    earlier: Sequence[Step]

    @property
    def input(self) -> Shape:
        """Shape of the first source."""
        return self.inputs[0]

    def error(self, text: str, key: str | None = None) -> CfgError:
        """A CfgError at this section, or at the line of `key` in it."""
        return self.raw.error(text, self.raw.find(key) if key else None)

    def require_fixed_size(self, graph: Graph, why: str) -> None:
        """Raise CfgError if width and height of the exported model are dynamic."""
        if graph.dynamic_size:
            raise self.error(f"{why}, so width and height of the exported model cannot be dynamic")


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """Cost of one layer for one image.

    operations: operations by the original's rule (its BFLOPs times 1e9).
    elementwise: the part of `operations` spent on shortcut additions, which the papers do not count.
    parameters: floats of the layer in the .weights file.
    weights: the part of `parameters` that are convolution or connection weights.
    memory_access: MAC of VoVNet eq. 1, h*w*(c_in + c_out) + k*k*c_in*c_out/groups.
    memory_access_bound: the lowest MAC of any layer with the same number of operations.
    io: input plus output elements (CIO).
    """

    operations: float = 0.0
    elementwise: float = 0.0
    parameters: int = 0
    weights: int = 0
    memory_access: int = 0
    memory_access_bound: float = 0.0
    io: int = 0


def total(costs: Iterable[LayerCost]) -> LayerCost:
    """Sum the costs of a layer's parts."""
    costs = tuple(costs)
    return LayerCost(**{item.name: sum(getattr(cost, item.name) for cost in costs) for item in fields(LayerCost)})


@dataclass(frozen=True)
class Stored:
    """One tensor of the .weights file.

    fan_in: number of inputs per output value, for random weights.
    transposed: the file holds the matrix transposed.
    centred: training subtracts the mean of each output's update (gradient centralisation).
    legacy_transposed: only files of the old format (major or minor version above 1000) hold the matrix transposed.
    """

    tensor: Tensor
    kind: StoredKind
    fan_in: int = 1
    transposed: bool = False
    centred: bool = False
    legacy_transposed: bool = False

    @property
    def decayed(self) -> bool:
        """Whether weight decay applies: to weights only, as in the original's update functions."""
        return self.kind in DECAYED_KINDS


@dataclass(frozen=True, kw_only=True)
class LayerSection(Options):
    """Options that every layer has (parser.c parse_network_cfg_custom), and the methods that layer types override."""

    names: ClassVar[tuple[str, ...]] = ()  # spellings of the section
    is_head: ClassVar[bool] = False  # has boxes or a training loss

    clip: float = option(0.0, "largest magnitude of this layer's weights; 0: no limit")
    onlyforward: bool = option(False, "no gradient passes this layer, and its weights only decay")
    dont_update: int = option(0, "number of iterations for which the weights are frozen; gradients still pass")
    burnin_update: int = option(0, "freeze the weights for this many times burn_in iterations; gradients still pass")
    stopbackward: int = option(
        0, "1: stop gradients here, so that all earlier layers are frozen; above 1: only until this iteration"
    )
    train_only_bn: bool = option(
        False, "in this layer and all earlier ones, update nothing but the rolling batch-norm statistics"
    )
    dontload: bool = option(
        False, "do not read this layer from a weights file; the next layer reads on from the same place"
    )
    dontloadscales: bool = option(False, "the weights file holds no scales, means and variances of this layer")
    learning_rate: float = option(1.0, "factor on the learning rate for this layer")

    @property
    def channels_per_class(self) -> int:
        """Heads: input channels per class; 0 for layers without classes."""
        return 0

    def sources(self, index: int) -> tuple[int, ...]:
        """Indices of the layers that layer `index` reads; -1 is the network's input."""
        return (index - 1,)

    def shape(self, site: Site) -> Shape:
        """Shape of the output; by default that of the input. Raises CfgError if the layer is impossible at this site."""
        return site.input

    def origins(self, site: Site, inputs: Sequence[Sequence[int]]) -> Sequence[int]:
        """Index of the layer that computed each output channel: this layer, unless it only passes channels on.

        inputs: the same for the channels of each input.
        """
        return (site.index,) * self.shape(site).channels

    def reported_shape(self, site: Site) -> Shape:
        """Shape that the original prints for the layer; by default the same as `shape`."""
        return self.shape(site)

    def detail(self, site: Site) -> str:
        """Text for the layer table in addition to the shapes, such as "3x3/2"."""
        return ""

    def cost(self, site: Site) -> LayerCost:
        """Cost for one image; zero for anything that the original does not count."""
        return LayerCost()

    def build(self, site: Site) -> Layer:
        """Build the module, with weights initialised as in the original."""
        raise AssertionError(f"{type(self).__name__} lacks build()")


@dataclass(frozen=True)
class Step:
    """One planned layer. `sources` are layer indices, -1 for the network's input."""

    section: LayerSection
    site: Site
    sources: tuple[int, ...]
    shape: Shape

    @property
    def index(self) -> int:
        return self.site.index

    @property
    def raw(self) -> RawSection:
        return self.site.raw

    @functools.cached_property
    def cost(self) -> LayerCost:
        return self.section.cost(self.site)

    @functools.cached_property
    def reported_shape(self) -> Shape:
        """Shape that the original prints (see LayerSection.reported_shape)."""
        return self.section.reported_shape(self.site)


class Layer(nn.Module):
    """A layer's computation: tensors of its sources in, one tensor (n, channels, height, width) out.

    draws: whether it draws random numbers in training.
    """

    draws = False

    def stored(self) -> Iterator[Stored]:
        """Yield the layer's tensors in the order of the .weights file."""
        yield from ()

    def connect(self, layers: Sequence[Layer]) -> None:
        """Called once after all layers are built, so that a layer can share tensors with another one."""

    def at_iteration(self, iteration: int, max_batches: int) -> None:
        """Called before each training iteration (counted from 1), for layers that change during training."""

    def recorded(self, output: Tensor, *inputs: Tensor) -> Tensor:
        """The values of the original's output buffer for this layer, in the same order; the first dimension is images."""
        return output

    def folded(self) -> Layer:
        """The layer for inference, with batch normalisation folded into the weights where possible."""
        return self

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        """Add the folded layer's computation to an ONNX graph.

        inputs: names of the layer's inputs. Returns the name of its output.
        Raises CfgError for anything that ONNX cannot express.
        """
        raise AssertionError(f"{type(self).__name__} lacks export()")


class WeightedLayer(Layer):
    """A layer with weights (outputs, ...), followed by batch normalisation or else by biases."""

    weights: nn.Parameter
    norm: BatchNorm | None
    biases: nn.Parameter | None

    @property
    def own_biases(self) -> nn.Parameter:
        """The biases, whether they belong to the batch normalisation or to the layer."""
        biases = self.biases if self.norm is None else self.norm.biases
        assert biases is not None
        return biases

    def folded(self: Weighted) -> Weighted:
        if self.norm is None:
            return self
        factor, offset = self.norm.affine()
        layer = copy.copy(self)
        layer._parameters, layer._modules = dict(self._parameters), dict(self._modules)
        layer.norm = None
        factor = factor.to(self.weights.dtype).view(-1, *[1] * (self.weights.dim() - 1))
        layer.weights = nn.Parameter(self.weights * factor, requires_grad=False)
        layer.biases = nn.Parameter(offset.to(self.weights.dtype), requires_grad=False)
        return layer


Weighted = TypeVar("Weighted", bound=WeightedLayer)


def normalization_tensors(norm: BatchNorm | None) -> Iterator[Stored]:
    """Yield the tensors of a batch normalisation that come after the biases in the .weights file."""
    if norm is not None:
        yield Stored(norm.scales, "scales")
        yield Stored(norm.rolling_mean, "rolling_mean")
        yield Stored(norm.rolling_variance, "rolling_variance")


def window_text(size_yx: tuple[int, int], strides_yx: tuple[int, int]) -> str:
    """A window for the layer table: kernel width x height / stride, such as "3x3/2" or "1x7/2x1"."""
    stride_y, stride_x = strides_yx
    stride = f"{stride_x}" if stride_x == stride_y else f"{stride_x}x{stride_y}"
    return f"{size_yx[1]}x{size_yx[0]}" + (f"/{stride}" if stride != "1" else "")


def absolute(index: int, reference: int) -> int:
    """Resolve a layer number in a cfg; a negative one counts back from `index`."""
    return index + reference if reference < 0 else reference


def conv_output(size: int, kernel: int, stride: int, padding: int) -> int:
    """Output length of a sliding window; `padding` is the total of both sides."""
    return (size + padding - kernel) // stride + 1


_blank: ContextVar[bool] = ContextVar("blank", default=False)


@contextmanager
def blank_weights() -> Iterator[None]:
    """Build layers with zero weights inside this context, to save the time of drawing random ones before a file is read."""
    token = _blank.set(True)
    try:
        yield
    finally:
        _blank.reset(token)


def initial_weights(shape: tuple[int, ...], fan_in: int) -> Tensor:
    """Uniform in +-sqrt(2 / fan_in), as in convolutional_layer.c make_convolutional_layer and its siblings."""
    if _blank.get():
        return torch.zeros(shape)
    bound = math.sqrt(2 / fan_in)
    return torch.empty(shape).uniform_(-bound, bound)

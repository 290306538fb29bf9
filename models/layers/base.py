"""The contract of a layer type.

A type is one file with two classes: a frozen `XSection` that holds the options and answers every question which needs
no tensors (sources, shape, cost, memory), and a module `X` that computes, and that lists its stored tensors. Nothing
outside that file asks for a layer's type.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from models.onnx_graph import Graph
from utils.cfg import RawSection
from utils.errors import CfgError
from utils.net_options import NetSection
from utils.options import Options, option

StoredKind = Literal[
    "biases", "scales", "rolling_mean", "rolling_variance", "weights", "shortcut_weights", "implicit_weights"
]
DECAYED_KINDS = frozenset({"weights", "shortcut_weights", "implicit_weights"})

MAX_OUTPUTS = 2**31 - 1  # the original counts a layer's outputs and weights in int


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
    def hwc(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.channels}"


@dataclass(frozen=True)
class Site:
    """Where a layer stands: everything it may ask about its surroundings.

    inputs: shapes of its sources, in the order of `sources`. earlier: the steps before it, at positions 0 to index - 1.
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
        """Raises CfgError if width and height of the exported model are dynamic."""
        if graph.dynamic_size:
            raise self.error(f"{why}, so width and height of the exported model cannot be dynamic")


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """LayerCost of one layer for one image.

    operations: by the original's rule, in single operations (its BFLOPs times 1e9).
    pooling: the part of `operations` that is pooling; elementwise: the part that is shortcut addition (the papers count
    the first and leave out the second). parameters: floats of the layer in the .weights file. weights: those of them that are
    convolution or connection weights. memory_access: MAC of VoVNet eq. 1, h*w*(c_in + c_out) + k*k*c_in*c_out/groups; its
    `memory_access_bound` is the least MAC of any layer with as many operations. io: input plus output elements (CIO).
    """

    operations: float = 0.0
    pooling: float = 0.0
    elementwise: float = 0.0
    parameters: int = 0
    weights: int = 0
    memory_access: int = 0
    memory_access_bound: float = 0.0
    io: int = 0


def total(costs: Iterable[LayerCost]) -> LayerCost:
    """Sum of costs, of a layer that consists of several."""
    costs = tuple(costs)
    return LayerCost(**{item.name: sum(getattr(cost, item.name) for cost in costs) for item in fields(LayerCost)})


@dataclass(frozen=True)
class Stored:
    """One tensor of the .weights file.

    fan_in: inputs of one output value (for random weights). transposed: the file holds the matrix transposed.
    centred: training takes the mean out of each output's update (gradient centralisation).
    legacy_transposed: it does so in files of the old format only (major or minor version above 1000).
    """

    tensor: Tensor
    kind: StoredKind
    fan_in: int = 1
    transposed: bool = False
    centred: bool = False
    legacy_transposed: bool = False

    @property
    def decayed(self) -> bool:
        """Whether weight decay applies (weights only, as in the original's update functions)."""
        return self.kind in DECAYED_KINDS


@dataclass(frozen=True, kw_only=True)
class LayerSection(Options):
    """Options valid for every layer (parser.c parse_network_cfg_custom), and the questions asked of it."""

    names: ClassVar[tuple[str, ...]] = ()  # spellings of the section
    is_head: ClassVar[bool] = False  # turns its input into boxes, or into a training loss

    clip: float = option(0.0, "largest magnitude of this layer's weights; 0: no limit")
    onlyforward: bool = option(False, "gradients end here; weights of the layer only decay")
    dont_update: int = option(0, "gradients pass, weights stay as they are for so many iterations")
    burnin_update: int = option(0, "gradients pass, weights stay as they are for so many times burn_in iterations")
    stopbackward: int = option(
        0, "1: gradients end here, layers before are frozen; above 1: they end here until this iteration"
    )
    train_only_bn: bool = option(False, "of this layer and those before it, only rolling statistics change")
    dontload: bool = option(
        False, "the layer's tensors are not read from a weights file; its bytes go to the next layer"
    )
    dontloadscales: bool = option(False, "scales, means and variances are not in the weights file")
    learning_rate: float = option(1.0, "factor on the learning rate of this layer")

    @property
    def channels_per_class(self) -> int:
        """Heads: by how many channels their input grows with one more class; 0 for what has no classes."""
        return 0

    def sources(self, index: int) -> tuple[int, ...]:
        """Indices of the layers read, -1 for the network's input; `index` is the layer's own."""
        return (index - 1,)

    def shape(self, site: Site) -> Shape:
        """Shape of the output. Raises CfgError for what cannot be."""
        raise AssertionError(f"{type(self).__name__} does not say its shape")

    def reported_shape(self, site: Site) -> Shape:
        """Shape that the original prints for the layer; differs from `shape` for antialiased layers only."""
        return self.shape(site)

    def detail(self, site: Site) -> str:
        """What the layer table says of the layer besides its shapes, such as "32  3x3/2"."""
        return ""

    def cost(self, site: Site) -> LayerCost:
        """LayerCost for one image; what the original does not count is zero."""
        return LayerCost()

    def build(self, site: Site) -> Layer:
        """The module, with weights as the original initialises them."""
        raise AssertionError(f"{type(self).__name__} does not say how it is built")


class Layer(nn.Module):
    """A layer's computation: tensors of its sources in, one tensor (n, channels, height, width) out."""

    def stored(self) -> Iterator[Stored]:
        """The tensors of the .weights file in file order."""
        yield from ()

    def connect(self, layers: Sequence[Layer]) -> None:
        """Called once when all layers are built, for layers that use tensors of another one."""

    def at_iteration(self, iteration: int, max_batches: int) -> None:
        """Called before each training iteration (counted from 1), for layers that change in the course of training."""

    def recorded(self, output: Tensor, *inputs: Tensor) -> Tensor:
        """The values that the original holds as this layer's output, in its order; first dimension: images."""
        return output

    def folded(self) -> Layer:
        """The layer for inference: batch normalisation folded into weights where that is possible."""
        return self

    def packed(self, site: Site) -> Layer:
        """The folded layer for inference in float32 on a CPU, with weights laid out for this processor."""
        return self

    def joined(self, before: Layer, site: Site) -> tuple[Layer, Layer] | None:
        """What takes the places of `before` and of this layer when one call can do the work of both.

        `before` is packed, feeds nobody else and is this layer's first input. The first of the pair passes its input on.
        """
        return None

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        """Add what the folded layer computes at inference to an ONNX graph, from the names of its inputs to that of its output.

        Raises CfgError for what ONNX cannot express.
        """
        raise AssertionError(f"{type(self).__name__} does not say how it is exported")


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


def absolute(index: int, reference: int) -> int:
    """Index of a layer that a key names: negative numbers count back from `index`."""
    return index + reference if reference < 0 else reference


def conv_output(size: int, kernel: int, stride: int, padding: int) -> int:
    """Output length of a window: (size + padding - kernel) / stride + 1, rounded down; padding is that of both sides."""
    return (size + padding - kernel) // stride + 1


_blank: ContextVar[bool] = ContextVar("blank", default=False)


@contextmanager
def blank_weights() -> Iterator[None]:
    """Layers built in this block have zeros for weights; of a big network that saves most of the time to build it."""
    token = _blank.set(True)
    try:
        yield
    finally:
        _blank.reset(token)


def initial_weights(shape: tuple[int, ...], fan_in: int) -> Tensor:
    """Uniform in +-sqrt(2 / fan_in), as convolutional_layer.c make_convolutional_layer and its like draw them."""
    if _blank.get():
        return torch.zeros(shape)
    bound = math.sqrt(2 / fan_in)
    return torch.empty(shape).uniform_(-bound, bound)

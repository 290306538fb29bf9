"""The contract of a head: besides what every layer answers, its boxes and its training loss."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from models.layers.base import Layer, LayerSection, Shape, Site
from models.onnx_graph import Graph
from utils.options import option

NO_LIMIT = 3.4028234663852886e38  # FLT_MAX, the original's "no limit" of max_delta


@dataclass(frozen=True)
class Candidates:
    """Boxes above a threshold, before suppression, of a whole batch.

    image: int64 (n,), the image of each box. cxcywh_rel: float32 (n, 4), centre and size relative to the network's input.
    scores: float32 (n, classes), objectness times class probability, zero where it does not exceed the threshold.
    objectness: float32 (n,).
    """

    image: Tensor
    cxcywh_rel: Tensor
    scores: Tensor
    objectness: Tensor


class DenseBoxes(NamedTuple):
    """Every box of a head, without threshold, for exported networks; cells row by row, anchors innermost.

    cxcywh_rel: float32 (images, boxes, 4). scores: float32 (images, boxes, classes). objectness: float32 (images, boxes).
    """

    cxcywh_rel: Tensor
    scores: Tensor
    objectness: Tensor


@dataclass(frozen=True)
class HeadLoss:
    """Loss of one head over a batch.

    value: scalar whose gradient with respect to the head's input is minus the original's delta, elementwise, summed over
    the images (not averaged). cost: what the original reports as the layer's cost; `value` equals it. terms: parts of the
    cost by name ("box", "objectness", "class", ...), they sum up to it. averages: what the original prints besides, by name.
    targets: truths that were assigned to this head (a truth given to several anchors counts several times).
    factor: what the original's GPU build multiplies this layer's delta by when it goes back (delta_normalizer); its CPU build
    and the recordings do not. The training objective is `value * factor`.
    """

    value: Tensor
    cost: float
    terms: dict[str, float] = field(default_factory=dict)
    averages: dict[str, float] = field(default_factory=dict)
    targets: int = 0
    factor: float = 1.0

    @property
    def objective(self) -> Tensor:
        """The scalar to call backward() on."""
        return self.value * self.factor


@dataclass(frozen=True, kw_only=True)
class HeadSection(LayerSection):
    """A layer with a training loss.

    truth: what the module's `loss` is given, "boxes", or a "vector" for each image, such as probabilities of the classes.
    """

    is_head: ClassVar[bool] = True
    truth: ClassVar[Literal["boxes", "vector"]] = "boxes"

    def shape(self, site: Site) -> Shape:
        return site.input


@dataclass(frozen=True, kw_only=True)
class BoxSection(HeadSection):
    """Options of a head with boxes that concern everyone: classes, truths, and how training images are altered."""

    classes: int = option(20, "number of classes", least=1)
    max_truths: int = option(200, "truths of an image that are used", key="max", least=0)
    jitter: float = option(0.2, "training: how far the crop may be off, as a part of the image", least=0)
    resize: float = option(1.0, "training: largest factor on the size of the image", least=0)
    random: float = option(0.0, "training: 1: size of the input changes by 1.4, above 1: by this factor")

    @property
    def filters(self) -> int:
        """Channels that the layer before must have."""
        raise AssertionError(f"{type(self).__name__} does not say its filters")

    @property
    def channels_per_class(self) -> int:
        return replace(self, classes=self.classes + 1).filters - self.filters

    def suppression(self) -> tuple[str, float]:
        """(nms_kind, beta_nms) for the suppression of this head's boxes."""
        return "default", 0.6


class Head(Layer):
    """A head's module. forward(x) is the original's layer output (activations applied), shape of its input, in float32."""

    def decode(self, output: Tensor, threshold: float, size_wh: tuple[int, int]) -> Candidates:
        """Boxes of a batch of outputs of `forward` whose score exceeds `threshold`; size_wh: the network's input in pixels."""
        raise AssertionError(f"{type(self).__name__} has no boxes")

    def dense(self, output: Tensor, size_wh: tuple[int, int]) -> DenseBoxes:
        """All boxes of a batch of outputs of `forward`: fixed shapes, no branch on values, for export."""
        raise AssertionError(f"{type(self).__name__} has no boxes")

    def export_boxes(self, graph: Graph, site: Site, output: str) -> tuple[str, str]:
        """`dense` in an ONNX graph: names of boxes (images, boxes, 4) and scores (images, boxes, classes) from `export`'s."""
        raise site.error(f"[{site.raw.name}] has no boxes, expected outputs=raw")

    def loss(self, x: Tensor, truth: Tensor, size_wh: tuple[int, int], seen: int) -> HeadLoss:
        """Training loss.

        x: the head's input (n, channels, height, width). truth: for boxes float32 (n, any, 5), each row cx, cy, w, h relative
        to the input image, then the class; the rows of an image end at the first one with cx = 0, as in the original. For a
        "vector" head float32 (n, values). size_wh: the network's input in pixels. seen: images trained on, this batch included.
        """
        raise AssertionError(f"{type(self).__name__} has no loss")

    def attack(self, x: Tensor, truth: Tensor, size_wh: tuple[int, int], seen: int) -> Tensor:
        """What self-adversarial training descends by changing the images: the objective if nothing were on them.

        Arguments as for `loss`; of `truth` only the shape counts.
        """
        return self.loss(x, torch.zeros_like(truth), size_wh, seen).objective


def loss_value(x: Tensor, delta: Tensor, cost: Tensor) -> Tensor:
    """A scalar equal to `cost` whose gradient with respect to `x` is minus `delta` (same number of elements, same order)."""
    value: Tensor = _LossValue.apply(x, delta.reshape(x.shape), cost)
    return value


class _LossValue(torch.autograd.Function):
    """The original writes its gradients by hand, they belong to no exact loss; so gradient and value are given apart."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, delta: Tensor, cost: Tensor) -> Tensor:
        ctx.save_for_backward(delta)
        ctx.dtype = x.dtype
        return cost.detach().clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (delta,) = ctx.saved_tensors
        return (-gradients[0] * delta).to(ctx.dtype), None, None

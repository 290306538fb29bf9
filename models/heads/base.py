"""The contract of a head: in addition to that of a layer, decoding of boxes and a training loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from models.layers.base import Layer, LayerSection, Shape, Site
from models.onnx_graph import Graph
from utils.errors import InputError
from utils.files import is_file
from utils.options import option

NO_LIMIT = 3.4028234663852886e38  # FLT_MAX, the original's "no limit" of max_delta


@dataclass(frozen=True)
class Candidates:
    """Boxes of a whole batch above a score threshold, before NMS.

    image: int64 (n,), index of each box's image in the batch.
    cxcywh_rel: float32 (n, 4), centre and size relative to the network's input.
    scores: float32 (n, classes), objectness times class probability; zero unless above the threshold.
    objectness: float32 (n,).
    """

    image: Tensor
    cxcywh_rel: Tensor
    scores: Tensor
    objectness: Tensor


class DenseBoxes(NamedTuple):
    """All boxes of a head, without a threshold, for exported networks; ordered by row, column, anchor.

    cxcywh_rel: float32 (images, boxes, 4).
    scores: float32 (images, boxes, classes).
    objectness: float32 (images, boxes).
    """

    cxcywh_rel: Tensor
    scores: Tensor
    objectness: Tensor


@dataclass(frozen=True)
class HeadLoss:
    """Loss of one head over a batch.

    value: scalar whose gradient with respect to the head's input is elementwise minus the original's delta; summed over the
        images, not averaged.
    cost: what the original reports as the layer's cost; equal to `value`.
    terms: parts of the cost by name ("box", "objectness", "class", ...), which add up to it.
    averages: other numbers that the original prints.
    targets: objects assigned to this head; an object assigned to several anchors counts several times.
    factor: what the original's GPU build multiplies the delta by in the backward pass (delta_normalizer); its CPU build and
        the recordings do not. The training objective is `value * factor`.
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

    labels: what the module's `loss` expects: "boxes", or a "vector" for each image, such as class probabilities.
    """

    is_head: ClassVar[bool] = True
    labels: ClassVar[Literal["boxes", "vector"]] = "boxes"

    def reported_shape(self, site: Site) -> Shape:
        """All zeros: for most heads the original prints no size."""
        return Shape(0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class BoxSection(HeadSection):
    """Options of every head with boxes: classes, ground truth, and the augmentation of training images."""

    classes: int = option(20, "number of classes", least=1)
    max_truths: int = option(200, "largest number of ground-truth boxes used per image", key="max", least=0)
    jitter: float = option(0.2, "training: largest random crop, as a fraction of the image size", least=0)
    resize: float = option(1.0, "training: largest random zoom factor", least=0)
    random: float = option(
        0.0, "training: multi-scale; 1: the input size changes by up to 1.4, above 1: by this factor"
    )

    @property
    def filters(self) -> int:
        """Number of channels that the previous layer must have."""
        raise AssertionError(f"{type(self).__name__} lacks filters")

    @property
    def channels_per_class(self) -> int:
        return replace(self, classes=self.classes + 1).filters - self.filters

    def suppression(self) -> tuple[str, float]:
        """(nms_kind, beta_nms) for the NMS of this head's boxes."""
        return "default", 0.6


class Head(Layer):
    """A head's module. forward(x) is the original's layer output (activations applied), in the shape of x, in float32."""

    def decode(self, output: Tensor, threshold: float, size_wh: tuple[int, int]) -> Candidates:
        """Decode the boxes with a score above `threshold` from a batch of `forward` outputs; size_wh: input size in pixels."""
        raise AssertionError(f"{type(self).__name__} has no boxes")

    def dense(self, output: Tensor, size_wh: tuple[int, int]) -> DenseBoxes:
        """Decode all boxes from a batch of `forward` outputs, with fixed shapes and no branches on values, for export."""
        raise AssertionError(f"{type(self).__name__} has no boxes")

    def export_boxes(self, graph: Graph, site: Site, output: str) -> tuple[str, str]:
        """Add `dense` to an ONNX graph.

        output: name of the output of `export`.
        Returns the names of boxes (images, boxes, 4) and scores (images, boxes, classes).
        """
        raise site.error(f"[{site.raw.name}] has no boxes, expected outputs=raw")

    def loss(self, x: Tensor, labels: Tensor, size_wh: tuple[int, int], seen: int) -> HeadLoss:
        """Training loss.

        x: the head's input (n, channels, height, width).
        labels: for "boxes" heads float32 (n, any, 5); each row is cx, cy, w, h relative to the input image, then the class.
            The rows of an image end at the first one with cx = 0, as in the original. For "vector" heads float32 (n, values).
        size_wh: size of the network's input in pixels.
        seen: images trained on so far, this batch included.
        """
        raise AssertionError(f"{type(self).__name__} has no loss")

    def adversarial_loss(self, x: Tensor, labels: Tensor, size_wh: tuple[int, int], seen: int) -> Tensor:
        """Loss that self-adversarial training minimises by changing the images: that of images without objects.

        Arguments as for `loss`; only the shape of `labels` matters.
        """
        return self.loss(x, torch.zeros_like(labels), size_wh, seen).objective


def make_loss(
    x: Tensor, delta: Tensor, terms: dict[str, float], averages: dict[str, float], targets: int, factor: float = 1.0
) -> HeadLoss:
    """Build the HeadLoss whose cost is the sum of its terms."""
    cost = sum(terms.values())
    return HeadLoss(loss_value(x, delta, delta.new_tensor(cost)), cost, terms, averages, targets, factor)


def loss_value(x: Tensor, delta: Tensor, cost: Tensor) -> Tensor:
    """A scalar equal to `cost` whose gradient with respect to `x` is minus `delta` (same number of elements, same order)."""
    value: Tensor = _LossValue.apply(x, delta.reshape(x.shape), cost)
    return value


class _LossValue(torch.autograd.Function):
    """Carries a value and an unrelated gradient: the original's hand-written gradients are not those of any exact loss."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, delta: Tensor, cost: Tensor) -> Tensor:
        ctx.save_for_backward(delta)
        ctx.dtype = x.dtype
        return cost.detach().clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (delta,) = ctx.saved_tensors
        return (-gradients[0] * delta).to(ctx.dtype), None, None


def to_floats(
    terms: Mapping[str, Tensor], measures: Mapping[str, Tensor], no_object: Tensor
) -> tuple[dict[str, float], dict[str, float]]:
    """The terms as floats, and the averages: the mean of each measure (k,), and `no_object`. Copies from the device once."""
    values = torch.stack(tuple(measures.values()), 1)
    means = values.sum(0) / max(len(values), 1)
    numbers = torch.cat((torch.stack(tuple(terms.values())), means, no_object[None])).tolist()
    averages = dict(zip((*measures, "no_object"), numbers[len(terms) :], strict=True))
    return dict(zip(terms, numbers, strict=False)), averages


def locate(name: str, cfg_path: str) -> Path:
    """Find a file named in a cfg: relative to the working folder, else to the cfg's folder or its parent.

    The original looks in the working folder only, which is usually the parent of `cfg/`.
    """
    folder = Path(cfg_path).resolve().parent
    found = next((path for path in (Path(name), folder / name, folder.parent / name) if is_file(path)), None)
    if found is None:
        raise InputError(f"{cfg_path}: {name} not found, neither here nor in {folder} or {folder.parent}")
    return found

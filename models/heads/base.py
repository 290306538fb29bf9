"""The contract of a head: besides what every layer answers, its boxes and its training loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from models.layers.base import Layer, LayerSection, Shape, Site


@dataclass(frozen=True)
class Candidates:
    """Boxes above a threshold, before suppression, of a whole batch.

    image: int64 (n,), the picture of each box. cxcywh_rel: float32 (n, 4), centre and size relative to the network's input.
    scores: float32 (n, classes), objectness times class probability, zero where it does not exceed the threshold.
    objectness: float32 (n,).
    """

    image: Tensor
    cxcywh_rel: Tensor
    scores: Tensor
    objectness: Tensor


@dataclass(frozen=True)
class HeadLoss:
    """Loss of one head over a batch.

    value: scalar whose gradient with respect to the head's input is minus the original's delta, elementwise, summed over
    the pictures (not averaged). cost: what the original reports as the layer's cost. terms: parts of the cost by name
    ("box", "objectness", "class"), for display. targets: truths that were assigned to this head.
    """

    value: Tensor
    cost: float
    terms: dict[str, float] = field(default_factory=dict)
    targets: int = 0


@dataclass(frozen=True, kw_only=True)
class HeadSection(LayerSection):
    """Options of a head that concern everyone."""

    is_head: ClassVar[bool] = True

    def shape(self, site: Site) -> Shape:
        return site.input


class Head(Layer):
    """A head's module. forward(x) is the original's layer output (activations applied), shape of its input."""

    def decode(self, output: Tensor, threshold: float, size_wh: tuple[int, int]) -> Candidates:
        """Boxes of a batch of outputs of `forward` whose score exceeds `threshold`; size_wh: the network's input in pixels."""
        raise AssertionError(f"{type(self).__name__} has no boxes")

    def loss(self, x: Tensor, truth: Tensor, size_wh: tuple[int, int], seen: int) -> HeadLoss:
        """Training loss.

        x: the head's input (n, channels, height, width). truth: float32 (n, max, 5), each row cx, cy, w, h relative to the
        input picture, then the class; the rows of a picture end at the first one with cx = 0, as in the original.
        size_wh: the network's input in pixels. seen: pictures trained on so far.
        """
        raise AssertionError(f"{type(self).__name__} has no loss")

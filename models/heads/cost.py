"""[cost]: distance of the network's output from a vector (cost_layer.c); [contrastive]: embeddings (softmax_layer.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from models.heads.base import NO_LIMIT, Head, HeadLoss, HeadSection, loss_value
from models.layers.base import Site
from models.onnx_graph import Graph
from utils.detections import MASKED_TARGET
from utils.options import ignored, option

_NO_TRAINING = "training of [contrastive] is not supported"


class IdentityHead(Head):
    """Passes (n, c, h, w) through. Without a target, the original's CPU build leaves its output buffer at zero."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        return inputs[0]

    def recorded(self, output: Tensor, *inputs: Tensor) -> Tensor:
        return torch.zeros_like(output)


@dataclass(frozen=True, kw_only=True)
class CostSection(HeadSection):
    """Squared or smooth L1 distance of the network's output from a target vector (cost_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("cost",)
    labels: ClassVar[Literal["boxes", "vector"]] = "vector"

    type: str = option(
        "sse",
        "distance: squared (sse), squared except for masked targets, or smooth L1",
        choices=("sse", "masked", "smooth"),
    )
    scale: float = option(1.0, "factor on the gradient")
    ratio: float = ignored(0.0, "the original computes a threshold from it and then sets that to 0")

    def detail(self, site: Site) -> str:
        return self.type

    def build(self, site: Site) -> Cost:
        return Cost(self)


class Cost(IdentityHead):
    """cost_layer.c forward_cost_layer."""

    def __init__(self, section: CostSection) -> None:
        super().__init__()
        self.section = section

    def loss(self, x: Tensor, labels: Tensor, size_wh: tuple[int, int], seen: int) -> HeadLoss:
        """See Head.loss; labels: float32 (n, values), the target for the previous layer's output."""
        with torch.no_grad():
            found = x.float().reshape(len(x), -1)
            target = labels.to(found)
            delta = target - found
            if self.section.type == "masked":
                delta = delta.masked_fill(target == MASKED_TARGET, 0)
            error = delta.square()
            if self.section.type == "smooth":  # blas.c smooth_l1_cpu
                far = delta.abs() >= 1
                error = torch.where(far, 2 * delta.abs() - 1, error)
                delta = torch.where(far, delta.sign(), delta)
            cost = error.sum()
        total = float(cost)
        value = loss_value(x, delta * self.section.scale, cost)
        return HeadLoss(value, total, {self.section.type: total}, targets=len(x))


@dataclass(frozen=True, kw_only=True)
class ContrastiveSection(HeadSection):
    """Embeddings that are similar for views of one object (softmax_layer.c contrastive layer; arXiv:2002.05709).

    Inference works; training would need object identities in the labels and is not supported.
    """

    names: ClassVar[tuple[str, ...]] = ("contrastive",)

    classes: int = ignored(1000, _NO_TRAINING)
    yolo_layer: int = ignored(0, _NO_TRAINING)
    temperature: float = ignored(1.0, _NO_TRAINING)
    cls_normalizer: float = ignored(1.0, _NO_TRAINING)
    max_delta: float = ignored(NO_LIMIT, _NO_TRAINING)
    contrastive_neg_max: int = ignored(3, _NO_TRAINING)

    def build(self, site: Site) -> Contrastive:
        return Contrastive(site)


class Contrastive(IdentityHead):
    """The embeddings themselves."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.refusal = site.error(_NO_TRAINING)

    def loss(self, x: Tensor, labels: Tensor, size_wh: tuple[int, int], seen: int) -> HeadLoss:
        raise self.refusal

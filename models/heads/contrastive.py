"""[contrastive]: alike embeddings for views of one object (softmax_layer.c contrastive layer; arXiv:2002.05709).

The network runs with it; training it needs identities of objects in the labels and is not offered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models.heads.base import NO_LIMIT, Head, HeadLoss, HeadSection
from models.layers.base import Shape, Site
from models.onnx_graph import Graph
from utils.options import ignored

_NO_TRAINING = "training of [contrastive] is not offered"


@dataclass(frozen=True, kw_only=True)
class ContrastiveSection(HeadSection):
    names: ClassVar[tuple[str, ...]] = ("contrastive",)

    classes: int = ignored(1000, _NO_TRAINING)
    yolo_layer: int = ignored(0, _NO_TRAINING)
    temperature: float = ignored(1.0, _NO_TRAINING)
    cls_normalizer: float = ignored(1.0, _NO_TRAINING)
    max_delta: float = ignored(NO_LIMIT, _NO_TRAINING)
    contrastive_neg_max: int = ignored(3, _NO_TRAINING)

    def reported_shape(self, site: Site) -> Shape:
        return Shape(0, 0, 0)

    def build(self, site: Site) -> Contrastive:
        return Contrastive(site)


class Contrastive(Head):
    """Input (n, c, h, w), output the same: the embeddings."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.refusal = site.error(_NO_TRAINING)

    def forward(self, x: Tensor) -> Tensor:
        return x

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        return inputs[0]

    def recorded(self, output: Tensor, *inputs: Tensor) -> Tensor:
        """forward_contrastive_layer: the original's CPU build leaves the output at zero, its GPU build copies the input."""
        return torch.zeros_like(output)

    def loss(self, x: Tensor, truth: Tensor, size_wh: tuple[int, int], seen: int) -> HeadLoss:
        raise self.refusal

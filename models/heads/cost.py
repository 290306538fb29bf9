"""[cost]: squared or smooth distance of the network's output from a vector (cost_layer.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from models.heads.base import Head, HeadLoss, HeadSection, loss_value
from models.layers.base import Shape, Site
from models.onnx_graph import Graph
from utils.detections import MASKED_TARGET
from utils.options import ignored, option


@dataclass(frozen=True, kw_only=True)
class CostSection(HeadSection):
    names: ClassVar[tuple[str, ...]] = ("cost",)
    truth: ClassVar[Literal["boxes", "vector"]] = "vector"

    type: str = option(
        "sse", "distance: squared, squared where not masked, or smooth L1", choices=("sse", "masked", "smooth")
    )
    scale: float = option(1.0, "factor on the gradient")
    ratio: float = ignored(0.0, "the original computes a threshold from it and then sets that to 0")

    def reported_shape(self, site: Site) -> Shape:
        return Shape(0, 0, 0)

    def build(self, site: Site) -> Cost:
        return Cost(self)


class Cost(Head):
    """Input (n, c, h, w), output the same."""

    def __init__(self, section: CostSection) -> None:
        super().__init__()
        self.section = section

    def forward(self, x: Tensor) -> Tensor:
        return x

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        return inputs[0]

    def recorded(self, output: Tensor, *inputs: Tensor) -> Tensor:
        """cost_layer.c forward_cost_layer: without a truth the original leaves its output at zero."""
        return torch.zeros_like(output)

    def loss(self, x: Tensor, truth: Tensor, size_wh: tuple[int, int], seen: int) -> HeadLoss:
        """truth: float32 (n, values), what the layer before should have given."""
        with torch.no_grad():
            found = x.float().reshape(len(x), -1)
            truth = truth.to(found)
            delta = truth - found
            if self.section.type == "masked":
                delta = delta.masked_fill(truth == MASKED_TARGET, 0)
            error = delta.square()
            if self.section.type == "smooth":  # blas.c smooth_l1_cpu
                far = delta.abs() >= 1
                error = torch.where(far, 2 * delta.abs() - 1, error)
                delta = torch.where(far, delta.sign(), delta)
            cost = error.sum()
        total = float(cost)
        return HeadLoss(
            loss_value(x, delta * self.section.scale, cost), total, {self.section.type: total}, targets=len(x)
        )

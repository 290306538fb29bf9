"""[softmax]: probabilities of classes, and the cross entropy that trains them (softmax_layer.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from models.heads.base import Head, HeadLoss, HeadSection, locate, loss_value
from models.heads.tree import read_tree
from models.layers.base import Shape, Site
from models.onnx_graph import Graph
from utils.detections import MASKED_TARGET
from utils.options import ignored, option


@dataclass(frozen=True, kw_only=True)
class SoftmaxSection(HeadSection):
    """Class probabilities, and the cross entropy that trains them (softmax_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("softmax", "soft")
    labels: ClassVar[Literal["boxes", "vector"]] = "vector"

    groups: int = option(1, "number of groups of values, each with a softmax of its own", least=1)
    temperature: float = option(1.0, "divisor of the values")
    tree: str | None = option(None, "file with a tree of classes, for a softmax within each sibling group")
    noloss: bool = option(False, "the layer is inside the network and has no loss")
    spatial: float = ignored(0.0, "unused in the original's CPU build; its GPU kernel reads beyond its input")

    @property
    def is_head(self) -> bool:  # type: ignore[override]
        return not self.noloss

    def shape(self, site: Site) -> Shape:
        if site.input.outputs % self.groups:
            raise site.error(f"groups={self.groups} does not divide {site.input.outputs} values", "groups")
        if self.temperature == 0:
            raise site.error("temperature: 0 is out of range, expected another number", "temperature")
        return site.input

    def detail(self, site: Site) -> str:
        return f"{self.groups} groups" if self.groups > 1 else ""

    def build(self, site: Site) -> Softmax:
        return Softmax(self, site)


class Softmax(Head):
    """Input and output (n, c, h, w), treated as c * h * w values."""

    def __init__(self, section: SoftmaxSection, site: Site) -> None:
        super().__init__()
        self.section = section
        self.tree = None if section.tree is None else read_tree(locate(section.tree, site.raw.path))
        if self.tree is not None and len(self.tree) != site.input.outputs:
            raise site.error(f"tree: has {len(self.tree)} classes, the layer has {site.input.outputs}", "tree")

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            output: Tensor = _StraightThrough.apply(x, self._probabilities(x.detach()))
            return output
        return self._probabilities(x)

    def _probabilities(self, x: Tensor) -> Tensor:
        values = x.float().reshape(len(x), -1)
        if self.tree is not None:
            return self.tree.softmax(values, self.section.temperature).view(x.shape)
        groups = values.view(len(x), self.section.groups, -1)
        return (groups / self.section.temperature).softmax(2).view(x.shape)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        section, shape = self.section, site.input
        if self.tree is not None:
            raise site.error("a softmax over a tree of classes cannot be exported to ONNX", "tree")
        if (shape.height, shape.width) != (1, 1):
            site.require_fixed_size(graph, "the softmax is over all values")
        values = graph.reshape(inputs[0], 0, section.groups, shape.outputs // section.groups)
        if section.temperature != 1:
            values = graph.node("Div", values, section.temperature)
        return graph.reshape(graph.node("Softmax", values, axis=2), 0, shape.channels, shape.height, shape.width)

    def loss(self, x: Tensor, labels: Tensor, size_wh: tuple[int, int], seen: int) -> HeadLoss:
        """Cross entropy (blas.c softmax_x_ent_cpu); labels: float32 (n, values), the target probability of each class.

        With a tree, classes whose target is `MASKED_TARGET` are left out (softmax_layer.c forward_softmax_layer_gpu).
        """
        with torch.no_grad():
            found = self._probabilities(x).reshape(len(x), -1)
            target = labels.to(found)
            error = torch.where(target != 0, -found.log(), 0.0)
            delta = target - found
            if self.tree is not None:
                masked = target == MASKED_TARGET
                error, delta = error.masked_fill(masked, 0), delta.masked_fill(masked, 0)
            cost = error.sum()
        total = float(cost)
        return HeadLoss(loss_value(x, delta, cost), total, {"class": total}, targets=len(x))


class _StraightThrough(torch.autograd.Function):
    """softmax_layer.c backward_softmax_layer: gradients, for example from [cost], pass unchanged, without the Jacobian."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, output: Tensor) -> Tensor:
        ctx.dtype = x.dtype
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].to(ctx.dtype), None

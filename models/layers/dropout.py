"""[dropout]: dropout or, with dropblock=1, DropBlock (dropout_layer.c, dropout_layer_kernels.cu)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers.base import Layer, LayerSection, Site
from models.onnx_graph import Graph
from utils.options import option

_DEFAULT_BLOCK = 7  # parser.c parse_dropout
_RISE = 0.85  # fraction of training over which DropBlock grows (forward_dropout_layer_gpu)


@dataclass(frozen=True, kw_only=True)
class DropoutSection(LayerSection):
    """Dropout or, with dropblock=1, DropBlock (dropout_layer.c, dropout_layer_kernels.cu)."""

    names: ClassVar[tuple[str, ...]] = ("dropout",)

    probability: float = option(0.2, "training: fraction of the values to drop", least=0, most=0.999)
    dropblock: bool = option(False, "DropBlock: drop a square of each channel instead of single values")
    dropblock_size_rel: float = option(0.0, "side of the square relative to the map's", least=0, most=1)
    dropblock_size_abs: int = option(0, "side of the square in cells; overrides dropblock_size_rel", least=0)

    def origins(self, site: Site, inputs: Sequence[Sequence[int]]) -> Sequence[int]:
        return inputs[0]

    def detail(self, site: Site) -> str:
        return f"{self.probability:g}" + (" dropblock" if self.dropblock else "")

    def block(self, height: int, width: int, progress: float) -> int:
        """Side of the dropped square in cells; progress: 0 at the start of training, 1 when the full size is reached."""
        if self.dropblock_size_abs or not self.dropblock_size_rel:
            side = min(self.dropblock_size_abs or _DEFAULT_BLOCK, height, width) * progress
        else:
            side = self.dropblock_size_rel * min(height, width) * progress
        return max(1, min(int(side), height, width))

    def build(self, site: Site) -> Layer:
        return Dropblock(self) if self.dropblock else Dropout(self.probability)


class Dropout(Layer):
    """In training, sets each value to zero with the given probability and scales up the others; at inference, the identity."""

    draws = True

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.probability, self.training) if self.training else x

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        return inputs[0]


class Dropblock(Layer):
    """In training, sets at most one square of each channel to zero; at inference, the identity.

    Probability and size grow during the first 85% of training (`at_iteration`).
    """

    draws = True

    def __init__(self, section: DropoutSection) -> None:
        super().__init__()
        self.section = section
        self.progress = 1.0

    def at_iteration(self, iteration: int, max_batches: int) -> None:
        self.progress = min(1.0, iteration / (_RISE * max_batches)) if max_batches else 1.0

    def forward(self, x: Tensor) -> Tensor:
        return x * self._mask(x) if self.training else x

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        return inputs[0]

    def _mask(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        side = self.section.block(h, w, self.progress)
        lowest, position = torch.rand(n, c, h * w, device=x.device).min(2)
        left, top = position % w, position // w
        left = torch.where(left > w - side, left - (w - side), left).clamp(0, w - side)
        top = torch.where(top > h - side, top - (h - side), top).clamp(0, h - side)
        hit = lowest < self.section.probability * self.progress / side**2
        inside_x = _between(torch.arange(w, device=x.device), left, side)[:, :, None, :]
        inside_y = _between(torch.arange(h, device=x.device), top, side)[:, :, :, None]
        kept = ~(hit[:, :, None, None] & inside_y & inside_x)
        scale = 1 / (1 - hit.sum(1) * side**2 / (c * h * w)).clamp(min=1e-3)
        return kept.to(x.dtype) * scale.to(x.dtype)[:, None, None, None]


def _between(positions: Tensor, start: Tensor, side: int) -> Tensor:
    """Whether each position lies in [start, start + side); takes starts (n, c), returns (n, c, positions)."""
    return (positions >= start[:, :, None]) & (positions < start[:, :, None] + side)

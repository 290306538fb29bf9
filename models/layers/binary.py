"""Weights and inputs of a convolution reduced to signs.

convolutional_layer.c binarize_weights and binarize_cpu; the gradients are those of convolutional_kernels.cu: straight through
for the weights, and for the inputs only where they lie within (-1, 1).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.export.graph import Graph


def binarized(weights: Tensor) -> Tensor:
    """Sign times mean magnitude of each filter, on (filters, channels, h, w)."""
    magnitude = weights.detach().abs().mean((1, 2, 3), keepdim=True)
    reduced = torch.where(weights.detach() > 0, magnitude, -magnitude)
    return reduced + (weights - weights.detach()) if weights.requires_grad and torch.is_grad_enabled() else reduced


def signs(x: Tensor) -> Tensor:
    """1 where x is above zero, else -1."""
    return _Signs.apply(x)


class _Signs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x > 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (x.abs() < 1)


def export_signs(graph: Graph, x: str) -> str:
    """`signs` in an ONNX graph."""
    return graph.node("Where", graph.node("Greater", x, 0.0), 1.0, -1.0)

"""Special convolutions: bfloat16 on processors without instructions for it, pointwise as a matrix product, binary weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from models.onnx_graph import Graph

_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # Intel and AMD, Intel, Arm

Convolve = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@lru_cache
def has_bfloat16() -> bool:
    """Whether this processor has bfloat16 instructions; before PyTorch 2.13, which cannot tell, always true."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    return capabilities is None or any(capabilities().get(name) for name in _INSTRUCTIONS)


def lacks_bfloat16(x: Tensor) -> bool:
    """Whether bfloat16 autocast is on for x and the processor would have to emulate it."""
    return (
        x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and not has_bfloat16()
    )


def rounded_to_bfloat16(convolve: Convolve) -> Convolve:
    """Wrap `convolve` to compute what bfloat16 instructions would: bfloat16 inputs, float32 sums, a bfloat16 result.

    Gradients are rounded in the same places, and tensors saved for the backward pass are kept in bfloat16. PyTorch would
    emulate each instruction, which takes three and a half times as long as float32.
    """

    def rounding(x: Tensor, weights: Tensor, biases: Tensor | None) -> Tensor:
        with torch.autocast("cpu", enabled=False), saved_tensors_hooks(Tensor.bfloat16, Tensor.float):
            return convolve(_rounded(x), _rounded(weights), None if biases is None else _rounded(biases)).bfloat16()

    return rounding


def _rounded(x: Tensor) -> Tensor:
    return x.bfloat16().float()


def is_pointwise(x: Tensor, kernel: tuple[int, ...], strides_yx: tuple[int, int], padding: int, groups: int) -> bool:
    """Whether `pointwise` can compute this convolution without copying x."""
    return (
        kernel == (1, 1)
        and strides_yx == (1, 1)
        and padding == 0
        and groups == 1
        and x.device.type == "cpu"
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def pointwise(x: Tensor, weights: Tensor, biases: Tensor | None) -> Tensor:
    """F.conv2d(x, weights, biases) with a 1x1 kernel on a CPU, forward and backward in about half the time.

    In channels-last layout an image is a matrix of pixels by channels. Float32 matrices are multiplied by MKL, which leaves
    half of the AVX-512 units of an AMD processor idle. There, oneDNN's convolution takes half the time again. On one thread,
    PyTorch uses it only for 16 images or more, so the pixels are distributed over that many.
    """
    pixels = x.permute(0, 2, 3, 1)
    is_float = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    images = _images_of(pixels.shape[:3].numel()) if is_float and has_avx512() else None
    if images is None:
        return F.linear(pixels, weights.flatten(1), biases).permute(0, 3, 1, 2)
    parts = pixels.reshape(images, 1, -1, pixels.shape[3]).permute(0, 3, 1, 2)
    y = F.conv2d(parts, weights, biases).permute(0, 2, 3, 1)
    return y.reshape(*pixels.shape[:3], -1).permute(0, 3, 1, 2)


def has_avx512() -> bool:
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


@lru_cache
def _images_of(pixels: int) -> int | None:
    """Return over how many images, 16 to 64, `pixels` can be distributed evenly; None if that is impossible."""
    return next((images for images in range(16, 65) if pixels % images == 0), None)


def binarize(weights: Tensor) -> Tensor:
    """Replace weights (filters, channels, h, w) by their sign times the filter's mean magnitude; straight-through gradient."""
    magnitude = weights.detach().abs().mean((1, 2, 3), keepdim=True)
    reduced = torch.where(weights.detach() > 0, magnitude, -magnitude)
    return reduced + (weights - weights.detach()) if weights.requires_grad and torch.is_grad_enabled() else reduced


def sign(x: Tensor) -> Tensor:
    """1 where x is positive, else -1."""
    return _Sign.apply(x)


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x > 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (x.abs() < 1)


def export_sign(graph: Graph, x: str) -> str:
    """Add `sign` to an ONNX graph; returns the name of its output."""
    return graph.node("Where", graph.node("Greater", x, 0.0), 1.0, -1.0)

"""1x1 convolutions in training, as products of matrices."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def is_pointwise(x: Tensor, kernel: tuple[int, ...], strides_yx: tuple[int, int], border: int, groups: int) -> bool:
    """Whether `pointwise` computes this convolution without moving a value of x."""
    return (
        kernel == (1, 1)
        and strides_yx == (1, 1)
        and border == 0
        and groups == 1
        and x.device.type == "cpu"
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def pointwise(x: Tensor, weights: Tensor, biases: Tensor | None) -> Tensor:
    """The same as F.conv2d(x, weights, biases) on a processor, forward and backward in about half the time: with channels
    last a picture is a matrix of pixels by channels, and PyTorch on one thread would leave oneDNN for an older algorithm."""
    return F.linear(x.permute(0, 2, 3, 1), weights.flatten(1), biases).permute(0, 3, 1, 2)

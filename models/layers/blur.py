"""Anti-aliasing: the fixed low-pass filter after a convolution or pooling (convolutional_layer.c, maxpool_layer.c).

With `antialiasing` the layer itself has stride 1 and the filter applies the stride. Later layers read the filtered tensor.
The original prints the unfiltered size, and in its buffer the filtered values overwrite only the first unfiltered ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.base import Shape, conv_output
from models.onnx_graph import Graph

_KERNELS = {
    2: [[1 / 4, 1 / 4], [1 / 4, 1 / 4]],
    3: [[1 / 16, 2 / 16, 1 / 16], [2 / 16, 4 / 16, 2 / 16], [1 / 16, 2 / 16, 1 / 16]],
}


def _geometry(antialiasing: int) -> tuple[int, int]:
    """(kernel size, padding per side) for a value of the key `antialiasing`."""
    return (2, 0) if antialiasing == 2 else (3, 1)


def blurred(shape: Shape, antialiasing: int, strides_yx: tuple[int, int]) -> Shape:
    """Shape after the filter; unchanged without antialiasing."""
    if not antialiasing:
        return shape
    size, padding = _geometry(antialiasing)
    height, width = (
        conv_output(length, size, stride, 2 * padding)
        for length, stride in zip((shape.height, shape.width), strides_yx, strict=True)
    )
    return Shape(shape.channels, height, width)


class Blur(nn.Module):
    """Depthwise 3x3 binomial (or 2x2 mean) filter with stride, on (n, channels, h, w)."""

    kernel: Tensor

    def __init__(self, channels: int, antialiasing: int, strides_yx: tuple[int, int]) -> None:
        super().__init__()
        self.strides_yx = strides_yx
        self.size, self.padding = _geometry(antialiasing)
        kernel = torch.tensor(_KERNELS[self.size]).expand(channels, 1, self.size, self.size).clone()
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, None, self.strides_yx, self.padding, 1, x.shape[1])

    def export(self, graph: Graph, x: str) -> str:
        """Add the filter to an ONNX graph; returns the name of its output."""
        geometry = {"kernel_shape": [self.size] * 2, "strides": list(self.strides_yx), "pads": [self.padding] * 4}
        return graph.node("Conv", x, self.kernel, **geometry, group=len(self.kernel))


def buffer_after_blur(sharp: Tensor, soft: Tensor) -> Tensor:
    """The original's output buffer of each image: `soft` copied over the beginning of `sharp`."""
    held = sharp.flatten(1).clone()
    held[:, : soft[0].numel()] = soft.flatten(1)
    return held

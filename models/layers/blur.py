"""Anti-aliasing: the fixed low-pass filter after a convolution or pooling (convolutional_layer.c, maxpool_layer.c).

With `antialiasing` the layer itself runs with stride 1 and the filter takes its stride. A later layer reads the filtered
tensor; the original prints the unfiltered size, and its buffer keeps the unfiltered rest behind the filtered values.
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


def blur_size(antialiasing: int) -> int:
    """Kernel size that a value of the key `antialiasing` stands for."""
    return 2 if antialiasing == 2 else 3


def blurred(shape: Shape, antialiasing: int, strides_yx: tuple[int, int]) -> Shape:
    """Shape after the filter; `shape` itself without antialiasing."""
    if not antialiasing:
        return shape
    size = blur_size(antialiasing)
    padding = 2 * (1 if size == 3 else 0)
    height, width = (
        conv_output(length, size, stride, padding)
        for length, stride in zip((shape.height, shape.width), strides_yx, strict=True)
    )
    return Shape(shape.channels, height, width)


class Blur(nn.Module):
    """Depthwise 3x3 binomial (or 2x2 mean) filter with stride on (n, channels, h, w)."""

    kernel: Tensor

    def __init__(self, channels: int, antialiasing: int, strides_yx: tuple[int, int]) -> None:
        super().__init__()
        self.strides_yx = strides_yx
        self.size = blur_size(antialiasing)
        kernel = torch.tensor(_KERNELS[self.size]).expand(channels, 1, self.size, self.size).clone()
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, None, self.strides_yx, 1 if self.size == 3 else 0, 1, x.shape[1])

    def export(self, graph: Graph, x: str) -> str:
        """The filter in an ONNX graph."""
        pads = [1 if self.size == 3 else 0] * 4
        shape = [self.size, self.size]
        return graph.node(
            "Conv", x, self.kernel, kernel_shape=shape, strides=list(self.strides_yx), pads=pads, group=len(self.kernel)
        )


def buffer_after_blur(sharp: Tensor, soft: Tensor) -> Tensor:
    """What the original's output buffer holds for each image: `soft` copied over the beginning of `sharp`."""
    held = sharp.flatten(1).clone()
    held[:, : soft[0].numel()] = soft.flatten(1)
    return held

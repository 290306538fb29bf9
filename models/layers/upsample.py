"""[upsample]: nearest neighbours, or with a negative stride the sums of squares of cells (upsample_layer.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from models.layers.base import Layer, LayerSection, Shape, Site
from models.onnx_graph import Graph
from utils.options import option


@dataclass(frozen=True, kw_only=True)
class UpsampleSection(LayerSection):
    names: ClassVar[tuple[str, ...]] = ("upsample",)

    stride: int = option(2, "factor on width and height; negative: they are divided by it")
    scale: float = option(1.0, "factor on the values")

    def shape(self, site: Site) -> Shape:
        shape, stride = site.input, abs(self.stride)
        if self.stride == 0:
            raise site.error("stride: 0 is out of range, expected a factor other than zero", "stride")
        if self.stride > 0:
            return Shape(shape.channels, shape.height * stride, shape.width * stride)
        if shape.height % stride or shape.width % stride:
            raise site.error(f"stride={self.stride} does not divide the input's size {shape}", "stride")
        return Shape(shape.channels, shape.height // stride, shape.width // stride)

    def build(self, site: Site) -> Upsample:
        return Upsample(self.stride, self.scale)


class Upsample(Layer):
    """Input (n, c, h, w), output (n, c, h * stride, w * stride); divided for a negative stride, where cells are summed."""

    def __init__(self, stride: int, scale: float) -> None:
        super().__init__()
        self.stride, self.scale = stride, scale

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 0:
            y = F.interpolate(x, scale_factor=float(self.stride), mode="nearest") if self.stride > 1 else x
        else:
            y = F.avg_pool2d(x, -self.stride, divisor_override=1)
        return y if self.scale == 1 else y * self.scale

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        factor, y = self.scale, inputs[0]
        if self.stride > 1:
            y = graph.node(
                "Resize",
                y,
                "",
                graph.scales((1, 1, self.stride, self.stride)),
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
        elif self.stride < 0:
            side = -self.stride
            y = graph.node("AveragePool", y, kernel_shape=[side, side], strides=[side, side])
            factor *= side * side
        return y if factor == 1 else graph.node("Mul", y, factor)

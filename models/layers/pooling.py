"""[maxpool], [local_avgpool] and [avgpool] (maxpool_layer.c, avgpool_layer.c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers.base import Layer, LayerCost, LayerSection, Shape, Site, conv_output, window_text
from models.layers.blur import Blur, blurred, buffer_after_blur
from models.onnx_graph import Graph
from utils.options import ignored, option


@dataclass(frozen=True, kw_only=True)
class WindowSection(LayerSection):
    """Options of a pooling window, and the geometry that follows from them."""

    stride: int = option(1, "stride in both directions", least=1)
    stride_x: int | None = option(None, "stride along x; default stride", least=1)
    stride_y: int | None = option(None, "stride along y; default stride", least=1)
    size: int | None = option(None, "height and width of the window; default stride", least=1)
    padding: int | None = option(None, "padding of both sides together; default size - 1", least=0)

    @property
    def strides_yx(self) -> tuple[int, int]:
        return self.stride_y or self.stride, self.stride_x or self.stride

    @property
    def window(self) -> int:
        return self.size or self.stride

    @property
    def border(self) -> int:
        return self.window - 1 if self.padding is None else self.padding

    def pooled(self, shape: Shape, strides_yx: tuple[int, int]) -> Shape:
        height = conv_output(shape.height, self.window, strides_yx[0], self.border)
        width = conv_output(shape.width, self.window, strides_yx[1], self.border)
        return Shape(shape.channels, height, width)

    def check(self, site: Site, strides_yx: tuple[int, int]) -> None:
        """Raise CfgError if a window would lie entirely outside the input."""
        near, out = self.border // 2, self.pooled(site.input, strides_yx)
        starts = ((out.height - 1) * strides_yx[0] - near, (out.width - 1) * strides_yx[1] - near)
        if near >= self.window or starts[0] >= site.input.height or starts[1] >= site.input.width:
            text = f"padding={self.border} is too large: some windows lie outside the input {site.input}"
            raise site.error(text, "padding")

    def origins(self, site: Site, inputs: Sequence[Sequence[int]]) -> Sequence[int]:
        return inputs[0]

    def shape(self, site: Site) -> Shape:
        self.check(site, self.strides_yx)
        return self.pooled(site.input, self.strides_yx)

    def detail(self, site: Site) -> str:
        return window_text((self.window, self.window), self.strides_yx)

    def cost(self, site: Site) -> LayerCost:
        out = self.reported_shape(site)
        operations = float(self.window * self.window * site.input.channels * out.height * out.width)
        return LayerCost(operations=operations, io=site.input.outputs + out.outputs)


@dataclass(frozen=True, kw_only=True)
class MaxpoolSection(WindowSection):
    """Max pooling (maxpool_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("maxpool", "max")

    maxpool_depth: bool = option(False, "maximum over groups of channels instead of a window (Maxout)")
    out_channels: int = option(
        1, "output channels with maxpool_depth: channel g is the largest of g, g + n, ...", least=1
    )
    antialiasing: int = option(0, "blur after pooling, which then has stride 1; 1: 3x3, 2: 2x2", least=0)
    maxpool_zero_nonmax: bool = ignored(False, "changes the previous layer in the original's GPU build only")

    @property
    def host_strides_yx(self) -> tuple[int, int]:
        """Strides (y, x) of the pooling itself: 1 if the blur applies the stride."""
        return (1, 1) if self.antialiasing else self.strides_yx

    def reported_shape(self, site: Site) -> Shape:
        if self.maxpool_depth:
            return replace(site.input, channels=self.out_channels)
        return self.pooled(site.input, self.host_strides_yx)

    def origins(self, site: Site, inputs: Sequence[Sequence[int]]) -> Sequence[int]:
        return LayerSection.origins(self, site, inputs) if self.maxpool_depth else inputs[0]

    def shape(self, site: Site) -> Shape:
        if not self.maxpool_depth:
            self.check(site, self.host_strides_yx)
        elif self.out_channels > site.input.channels:
            raise site.error(f"out_channels={self.out_channels} exceeds {site.input.channels} channels", "out_channels")
        return blurred(self.reported_shape(site), 0 if self.maxpool_depth else self.antialiasing, self.strides_yx)

    def detail(self, site: Site) -> str:
        return "over channels" if self.maxpool_depth else super().detail(site)

    def build(self, site: Site) -> Layer:
        return MaxpoolDepth(self.out_channels) if self.maxpool_depth else Maxpool(self, site)


@dataclass(frozen=True, kw_only=True)
class LocalAvgpoolSection(WindowSection):
    """Average pooling over a window (maxpool_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("local_avgpool", "local_avg")

    def build(self, site: Site) -> LocalAvgpool:
        return LocalAvgpool(self)


@dataclass(frozen=True, kw_only=True)
class AvgpoolSection(LayerSection):
    """Global average pooling (avgpool_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("avgpool", "avg")

    def origins(self, site: Site, inputs: Sequence[Sequence[int]]) -> Sequence[int]:
        return inputs[0]

    def shape(self, site: Site) -> Shape:
        return Shape(site.input.channels, 1, 1)

    def cost(self, site: Site) -> LayerCost:
        return LayerCost(io=site.input.outputs + site.input.channels)

    def build(self, site: Site) -> Avgpool:
        return Avgpool()


class Window:
    """Pooling geometry: windows start at -(border / 2) and may extend beyond the far side.

    PyTorch pads both sides equally, by at most half a window. Where the original differs, `pad` is applied first.
    """

    def __init__(self, section: WindowSection, strides_yx: tuple[int, int]) -> None:
        self.size, self.border, self.strides_yx = section.window, section.border, strides_yx
        self.near = self.border // 2
        self.far = self.border - self.near

    def native(self, height: int, width: int) -> tuple[int, bool] | None:
        """(padding, ceil_mode) for which PyTorch's geometry equals the original's at this input size; None if there are none."""
        if self.near > self.size // 2:
            return None
        sides = tuple(zip((height, width), self.strides_yx, strict=True))
        wanted = [conv_output(length, self.size, stride, self.border) for length, stride in sides]
        for ceil in (False, True):
            if wanted == [_native_output(length, self.size, stride, self.near, ceil) for length, stride in sides]:
                return self.near, ceil
        return None

    def export(self, graph: Graph, op: str, x: str, **attributes: int) -> str:
        """Add the pooling to an ONNX graph, where each side has its own padding."""
        pads, shape = [self.near, self.near, self.far, self.far], [self.size] * 2
        return graph.node(op, x, kernel_shape=shape, strides=list(self.strides_yx), pads=pads, **attributes)

    def pad(self, x: Tensor, value: float) -> Tensor:
        return F.pad(x, (self.near, self.far, self.near, self.far), value=value)


def _native_output(length: int, size: int, stride: int, padding: int, ceil: bool) -> int:
    span = length + 2 * padding - size
    outputs = (-(-span // stride) if ceil else span // stride) + 1
    if ceil and (outputs - 1) * stride >= length + padding:  # the last window must start inside
        outputs -= 1
    return outputs


class Maxpool(Layer):
    """Largest value of each window; positions outside the input count as the lowest float."""

    def __init__(self, section: MaxpoolSection, site: Site) -> None:
        super().__init__()
        self.window = Window(section, section.host_strides_yx)
        channels = site.input.channels
        self.blur = Blur(channels, section.antialiasing, section.strides_yx) if section.antialiasing else None

    def forward(self, x: Tensor) -> Tensor:
        y = self._sharp(x)
        return y if self.blur is None else self.blur(y)

    def _sharp(self, x: Tensor) -> Tensor:
        window = self.window
        native = window.native(*x.shape[2:])
        if native:
            return F.max_pool2d(x, window.size, window.strides_yx, native[0], 1, native[1])
        return F.max_pool2d(window.pad(x, torch.finfo(x.dtype).min), window.size, window.strides_yx)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        window, x = self.window, inputs[0]
        if window.far >= window.size:
            raise site.error(f"padding={window.border} exceeds what ONNX allows for size={window.size}", "padding")
        y = window.export(graph, "MaxPool", x)
        return y if self.blur is None else self.blur.export(graph, y)

    def recorded(self, output: Tensor, *inputs: Tensor) -> Tensor:
        return output if self.blur is None else buffer_after_blur(self._sharp(inputs[0]), output)


class MaxpoolDepth(Layer):
    """Output channel g is the maximum over the input channels g, g + out_channels, ..."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        missing = -c % self.out_channels
        if missing:
            x = F.pad(x, (0, 0, 0, 0, 0, missing), value=torch.finfo(x.dtype).min)
        # The gradient needs the index of the maximum, which amax does not provide.
        has_gradient = torch.is_grad_enabled()
        if not x.is_contiguous(memory_format=torch.channels_last):
            groups = x.reshape(n, -1, self.out_channels, h, w)
            return groups.max(1).values if has_gradient else groups.amax(1)
        pixels = x.permute(0, 2, 3, 1)  # the output keeps this layout
        if not has_gradient:
            return pixels.reshape(n, h, w, -1, self.out_channels).amax(3).permute(0, 3, 1, 2)
        # Seen as an image row per pixel, groups can be pooled, which takes a fifth of the time of max.
        rows = pixels.reshape(n * h, w, -1, self.out_channels).permute(0, 3, 1, 2)
        largest = F.max_pool2d(rows, (1, rows.shape[3]))
        return largest.permute(0, 2, 3, 1).reshape(n, h, w, -1).permute(0, 3, 1, 2)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        count, channels = self.out_channels, site.input.channels
        whole, rest = channels // count * count, channels % count
        parts = [graph.slice(inputs[0], 1, start, start + count) for start in range(0, whole, count)]
        most = graph.node("Max", *parts) if len(parts) > 1 else parts[0]
        if not rest:
            return most
        first = graph.node("Max", graph.slice(most, 1, 0, rest), graph.slice(inputs[0], 1, whole))
        return graph.concat([first, graph.slice(most, 1, rest)], 1)


class LocalAvgpool(Layer):
    """Mean over the part of each window that lies inside the input.

    The gradient divides by the size of the whole window, like maxpool_layer.c backward_local_avgpool_layer.
    """

    def __init__(self, section: LocalAvgpoolSection) -> None:
        super().__init__()
        self.window = Window(section, section.strides_yx)

    def _sum(self, x: Tensor) -> Tensor:
        window = self.window
        return F.avg_pool2d(window.pad(x, 0.0), window.size, window.strides_yx, divisor_override=1)

    def forward(self, x: Tensor) -> Tensor:
        area = self.window.size**2
        counts = self._sum(torch.ones_like(x[:1, :1]))
        whole = self._sum(x) / area
        return whole + (whole * (area / counts - 1)).detach()

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        return self.window.export(graph, "AveragePool", inputs[0], count_include_pad=0)


class Avgpool(Layer):
    """Mean over height and width: (n, c, h, w) to (n, c, 1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        return graph.node("GlobalAveragePool", inputs[0])

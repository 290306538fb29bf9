"""EfficientNet-B0 as the CSPNet authors published it for Darknet."""

from __future__ import annotations

from compose.blocks import squeeze_excite
from compose.features import Features
from compose.net import Map, Net

BLOCKS = (
    (32, 16, 3, 1, 8),
    (96, 24, 3, 2, 16),
    (144, 24, 3, 1, 8),
    (144, 40, 5, 2, 8),
    (192, 40, 5, 1, 16),
    (192, 80, 3, 1, 16),
    (384, 80, 3, 1, 24),
    (384, 80, 3, 1, 24),
    (384, 112, 5, 2, 24),
    (576, 112, 5, 1, 32),
    (576, 112, 5, 1, 32),
    (576, 192, 5, 2, 32),
    (960, 192, 5, 1, 64),
    (960, 192, 5, 1, 64),
    (960, 192, 5, 1, 64),
    (960, 320, 3, 1, 64),
)
"""Per block: expanded width, output width, kernel, stride, hidden channels of the squeeze, as published."""


def efficientnet_b0(net: Net) -> Features:
    """Inverted bottlenecks with squeeze-and-excitation, swish."""
    with net.using("swish"):
        net.part("stem")
        x = net.conv(net.input, 32, 3, stride=2)
        maps = {}
        for index, (expanded, out, size, stride, hidden) in enumerate(BLOCKS):
            net.part(f"inverted bottleneck {index + 1}")
            x = _inverted_bottleneck(net, x, expanded, out, size, stride, hidden)
            maps[x.stride] = x
        net.part("last convolution")
        maps[x.stride] = net.conv(x, 1280)
    return Features("efficientnet-b0", maps)


def _inverted_bottleneck(net: Net, x: Map, expanded: int, out: int, size: int, stride: int, hidden: int) -> Map:
    spatial = net.conv(net.conv(x, expanded), expanded, size, stride=stride, groups=expanded)
    narrow = net.conv(squeeze_excite(net, spatial, hidden), out, activation="linear")
    if (narrow.channels, narrow.side) != (x.channels, x.side):
        return narrow
    return net.shortcut(net.dropout(narrow, 0.2), x, "linear")

"""Networks of inverted bottlenecks, as published for Darknet by the CSPNet authors: EfficientNet-B0 and MobileNet-v2."""

from __future__ import annotations

from compose.blocks import squeeze_excite
from compose.net import Features, Map, Net

EFFICIENTNET_BLOCKS = (
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
"""Per block: expanded channels, output channels, kernel, stride, hidden channels of SE."""
MOBILENET_STAGES = (
    ((96, 24), (144, 24)),
    ((144, 32), (192, 32), (192, 32), (192, 64), (384, 64), (384, 64), (384, 64)),
    ((384, 96), (576, 96), (576, 96)),
    ((576, 160), (960, 160), (960, 160), (960, 320)),
)
"""Per stage after the first block: expanded and output channels of each block; the first block has stride 2."""


def efficientnet_b0(net: Net) -> Features:
    """Inverted bottlenecks with SE and swish. Heads read the expansion before each stride, as in the authors' cfg."""
    with net.using("swish"):
        net.part("stem")
        x = net.conv(net.input, 32, 3, stride=2)
        maps = {}
        for index, (expanded, out, size, stride, hidden) in enumerate(EFFICIENTNET_BLOCKS):
            net.part(f"inverted bottleneck {index + 1}")
            expansion = net.conv(x, expanded)
            maps[x.stride] = expansion
            spatial = net.conv(expansion, expanded, size, stride=stride, groups=expanded)
            narrow = net.conv(squeeze_excite(net, spatial, hidden), out, activation="linear")
            fits = (narrow.channels, narrow.side) == (x.channels, x.side)
            x = net.shortcut(net.dropout(narrow, 0.2), x, "linear") if fits else narrow
        net.part("last convolution")
        maps[x.stride] = net.conv(x, 1280)
    return Features("efficientnet-b0", maps)


def mobilenet_v2(net: Net) -> Features:
    """Inverted bottlenecks with ReLU and linear outputs."""
    with net.using("relu"):
        net.part("stem")
        x = net.conv(net.input, 32, 3, stride=2)
        maps = {}
        x = net.conv(net.conv(net.conv(x, 32), 32, 3, groups=32), 16, activation="linear")
        for stage, blocks in enumerate(MOBILENET_STAGES, 2):
            net.part(f"stage {stage}: {len(blocks)} inverted bottlenecks")
            for block, (expanded, out) in enumerate(blocks):
                hidden = net.conv(net.conv(x, expanded), expanded, 3, stride=1 if block else 2, groups=expanded)
                x = _linear_output(net, hidden, out, x)
            maps[x.stride] = x
        net.part("last convolution")
        maps[x.stride] = net.conv(x, 1280)
    return Features("mobilenet-v2", maps)


def cspmobilenet_v2(net: Net) -> Features:
    """In each stage, a depthwise convolution of the first block bypasses the rest; the others have two filters per channel."""
    with net.using("relu"):
        net.part("stem")
        x = net.conv(net.input, 32, 3, stride=2)
        bypass = net.conv(x, 16, 3, groups=16)
        hidden = net.conv(net.conv(x, 32), 32, 3, groups=32)
        x = net.route(net.conv(hidden, 16, activation="linear"), bypass)
        maps = {}
        for stage, blocks in enumerate(MOBILENET_STAGES, 2):
            net.part(f"stage {stage}: {len(blocks)} inverted bottlenecks and a bypass")
            for block, (expanded, out) in enumerate(blocks):
                half = expanded // 2
                narrow = net.conv(x, half)
                if not block:
                    bypass = net.conv(narrow, half, 3, stride=2, groups=half)
                hidden = net.conv(narrow, expanded, 3, stride=1 if block else 2, groups=half)
                x = _linear_output(net, hidden, out, x)
            x = net.route(x, bypass)
            maps[x.stride] = x
        net.part("last convolution")
        maps[x.stride] = net.conv(x, 640)
    return Features("cspmobilenet-v2", maps)


def _linear_output(net: Net, hidden: Map, out: int, identity: Map) -> Map:
    narrow = net.conv(hidden, out, activation="linear")
    if (narrow.channels, narrow.side) != (identity.channels, identity.side):
        return narrow
    return net.shortcut(narrow, identity, "linear")

"""Darknet's backbones, all from published cfgs: YOLOv3-tiny's, the reference classifier, Darknet-53, CSPDarknet-53."""

from __future__ import annotations

from compose.net import Features, Map, Net


def tiny(net: Net, last: int = 1024) -> Features:
    """YOLOv3-tiny's backbone: seven 3x3 convolutions with pooling in between; the last pooling keeps the size."""
    net.part("backbone")
    maps = {}
    x = net.input
    for filters in (16, 32, 64, 128, 256):
        x = net.conv(x, filters, 3)
        maps[x.stride] = x
        x = net.maxpool(x)
    x = net.maxpool(net.conv(x, 512, 3), stride=1)
    maps[x.stride] = net.conv(x, last, 3)
    return Features("tiny", maps)


def tiny_partial(net: Net) -> Features:
    """YOLOv3-tiny-PRN's backbone: the last convolution has 512 channels, and the one before it is added to it."""
    features = tiny(net, last=512)
    last = features.last
    # Two layers back: the convolution with 512 channels before the last pooling.
    before = Map(last.index - 2, 512, last.side, last.stride)
    return Features("tiny", {**features.maps, last.stride: net.shortcut(last, before)})


def reference(net: Net) -> Features:
    """The Darknet reference classifier: seven 3x3 convolutions with pooling in between."""
    net.part("backbone")
    x = net.conv(net.input, 16, 3)
    for filters in (32, 64, 128, 256, 512, 1024):
        x = net.conv(net.maxpool(x), filters, 3)
    return Features("darknet-reference", {x.stride: x})


def darknet53(net: Net) -> Features:
    """YOLOv3's backbone: residual blocks of a 1x1 and a 3x3 convolution."""
    net.part("stem")
    x = net.conv(net.input, 32, 3)
    maps = {}
    for filters, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        x = net.conv(x, filters, 3, stride=2)
        net.part(f"{blocks} residual blocks of {filters}")
        for _ in range(blocks):
            inner = net.conv(net.conv(x, filters // 2), filters, 3)
            x = net.shortcut(inner, x, "linear")
        maps[x.stride] = x
    return Features("darknet53", maps)


def cspdarknet53(net: Net) -> Features:
    """In each stage, half of the channels bypass the residual blocks, between two partial transitions."""
    net.part("stem")
    x = net.conv(net.input, 32, 3)
    maps = {}
    for filters, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        x = net.conv(x, filters, 3, stride=2)
        half = max(filters // 2, 64)
        net.part(f"{blocks} residual blocks of {half}, and a bypass")
        bypass = net.conv(x, half)
        through = net.conv(x, half)
        for _ in range(blocks):
            inner = net.conv(net.conv(through, filters // 2), half, 3)
            through = net.shortcut(inner, through, "linear")
        x = net.conv(net.route(net.conv(through, half), bypass), filters)
        maps[x.stride] = x
    return Features("cspdarknet53", maps)

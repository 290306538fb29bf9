"""ResNeXt-50 and CSPResNeXt-50 as the CSPNet authors published them for Darknet."""

from __future__ import annotations

from compose.features import Features
from compose.net import Map, Net

CARDINALITY = 32


def stem(net: Net) -> Map:
    """7x7 and pooling to /4, 64 channels."""
    net.part("stem")
    return net.maxpool(net.conv(net.input, 64, 7, stride=2))


def bottleneck(net: Net, x: Map, width: int, out: int, *, groups: int = 1, stride: int = 1) -> Map:
    """1x1, 3x3, linear 1x1, and the input added over the channels it has."""
    identity = net.subsample(x, stride) if stride > 1 else x
    inner = net.conv(net.conv(x, width), width, 3, groups=groups, stride=stride)
    return net.shortcut(net.conv(inner, out, activation="linear"), identity)


def resnext50(net: Net) -> Features:
    """Residual stages of 3, 4, 6, 3 blocks with 32 groups."""
    x = stem(net)
    maps = {}
    for stage, (width, blocks) in enumerate(((128, 3), (256, 4), (512, 6), (1024, 3))):
        net.part(f"stage {stage + 1}: {blocks} blocks")
        for block in range(blocks):
            x = bottleneck(net, x, width, 2 * width, groups=CARDINALITY, stride=2 if stage and not block else 1)
        maps[x.stride] = x
    return Features("resnext50", maps)


def cspresnext50(net: Net) -> Features:
    """Half of each stage's channels passes by its blocks; both partial transitions as published.

    The two 1x1 convolutions that begin stages 2 and 3 are linear in the published table, the others leaky.
    """
    x = stem(net)
    maps = {}
    table = ((128, 3, None), (256, 3, "linear"), (512, 5, "linear"), (1024, 2, None))
    for stage, (width, blocks, activation) in enumerate(table):
        if stage:
            x = net.conv(x, width, 3, stride=2, groups=CARDINALITY)
        net.part(f"stage {stage + 1}: half passes by {blocks} blocks")
        past = net.conv(x, width, activation=activation)
        through = net.conv(x, width if stage else width // 2, activation=activation)
        for _ in range(blocks):
            through = bottleneck(net, through, width, width, groups=CARDINALITY)
        x = net.conv(net.route(net.conv(through, width), past), 2 * width)
        maps[x.stride] = x
    return Features("cspresnext50", maps)

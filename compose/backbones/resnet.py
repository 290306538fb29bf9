"""Residual networks and their CSP forms: ResNet, ResNeXt, Res2Net and Res2NeXt.

ResNet-10, -50 and -101, ResNeXt-50 and CSPResNe(X)t-50 are published as Darknet cfgs. ResNet-152 follows the table in its
paper (arXiv 1512.03385), Res2Net-50 and Res2NeXt-50 their authors' code (arXiv 1904.01169). CSPResNet-101 extends
CSPResNet-50. The table of CSPResNet-10 is not public, so its widths are fitted.
"""

from __future__ import annotations

from compose.net import Features, Map, Net

CSP_RESNET10 = ((64, 16, 80), (128, 32, 48), (256, 64, 112), (512, 128, 272))
"""Per stage: output, bypass and block channels."""


def resnet10(net: Net) -> Features:
    """One block of two 3x3 convolutions per stage; the identity is added over the channels that it has."""
    x = _stem(net)
    maps = {}
    for stage, width in enumerate((64, 128, 256, 512)):
        net.part(f"stage {stage + 1}")
        identity = net.subsample(x, 2) if stage else x
        first = net.conv(x, width, 3, stride=2 if stage else 1)
        x = net.shortcut(net.conv(first, width, 3, activation="linear"), identity)
        maps[x.stride] = x
    return Features("resnet10", maps)


def cspresnet10(net: Net) -> Features:
    """In each stage, a quarter of the channels bypass the residual block; the second transition precedes the pooling."""
    x = _stem(net)
    maps = {}
    for stage, (out, bypass_width, width) in enumerate(CSP_RESNET10):
        if stage:
            x = net.maxpool(x)
        net.part(f"stage {stage + 1}: {bypass_width} channels bypass the block")
        bypass = net.conv(x, bypass_width)
        through = net.conv(x, width)
        inner = net.conv(net.conv(through, width, 3), width, 3, activation="linear")
        through = net.conv(net.shortcut(inner, through), width)
        x = net.conv(net.route(through, bypass), out)
        maps[x.stride] = x
    return Features("cspresnet10", maps)


def residual(net: Net, name: str, blocks: tuple[int, ...], *, groups: int = 1) -> Features:
    """Bottleneck stages as published for Darknet; with 32 `groups` and doubled inner widths, a ResNeXt."""
    x = _stem(net)
    maps = {}
    for stage, count in enumerate(blocks):
        out = 256 * 2**stage
        net.part(f"stage {stage + 1}: {count} blocks")
        for block in range(count):
            stride = 2 if stage and not block else 1
            x = _bottleneck(net, x, out // 2 if groups > 1 else out // 4, out, groups=groups, stride=stride)
        maps[x.stride] = x
    return Features(name, maps)


def csp_residual(net: Net, name: str, blocks: tuple[int, ...], *, groups: int = 1) -> Features:
    """In each stage, half of the channels bypass the blocks, between two partial transitions.

    In the published cfgs, the two 1x1 convolutions at the start of stages 2 and 3 are linear, all others leaky.
    """
    x = _stem(net)
    maps = {}
    for stage, count in enumerate(blocks):
        half, grouped = 128 * 2**stage, groups > 1
        activation = "linear" if stage in (1, 2) else None
        if stage:
            x = net.conv(x, x.channels, 3, stride=2, groups=groups)
        net.part(f"stage {stage + 1}: half bypasses {count} blocks")
        bypass = net.conv(x, half, activation=activation)
        through = net.conv(x, half if stage else half // 2, activation=activation)
        for _ in range(count):
            through = _bottleneck(net, through, half if grouped else half // 2, half, groups=groups)
        x = net.conv(net.route(net.conv(through, half), bypass), 2 * half if grouped else half)
        maps[x.stride] = x
    return Features(name, maps)


def _stem(net: Net) -> Map:
    """7x7 convolution and pooling to /4, with 64 channels."""
    net.part("stem")
    return net.maxpool(net.conv(net.input, 64, 7, stride=2))


def _bottleneck(net: Net, x: Map, width: int, out: int, *, groups: int = 1, stride: int = 1) -> Map:
    """1x1, 3x3 and linear 1x1 convolution; the input is added over the channels that it has."""
    identity = net.subsample(x, stride) if stride > 1 else x
    inner = net.conv(net.conv(x, width), width, 3, groups=groups, stride=stride)
    return net.shortcut(net.conv(inner, out, activation="linear"), identity)


def resnet152(net: Net) -> Features:
    """Bottleneck stages of 3, 8, 36 and 3 blocks, with 1x1 projections and strides in the first 1x1, as in the paper."""
    with net.using("relu"):
        x = _padded_stem(net)
        maps = {}
        for stage, count in enumerate((3, 8, 36, 3)):
            out = 256 * 2**stage
            net.part(f"stage {stage + 1}: {count} blocks")
            for block in range(count):
                stride = 2 if stage and not block else 1
                identity = x if block else net.conv(x, out, stride=stride, activation="linear")
                inner = net.conv(net.conv(x, out // 4, stride=stride), out // 4, 3)
                x = net.shortcut(net.conv(inner, out, activation="linear"), identity)
            maps[x.stride] = x
    return Features("resnet152", maps)


def res2net(net: Net, name: str, width: int, *, groups: int = 1) -> Features:
    """ResNet-50 whose 3x3 is a chain over four slices, of `width` channels each in stage 1; with groups, Res2NeXt."""
    with net.using("relu"):
        x = _padded_stem(net)
        maps = {}
        for stage, count in enumerate((3, 4, 6, 3)):
            slice_width, out = width * 2**stage, 256 * 2**stage
            net.part(f"stage {stage + 1}: {count} blocks of 4 slices of {slice_width} channels")
            for block in range(count):
                stride = 2 if stage and not block else 1
                x = _res2net_block(net, x, slice_width, out, groups=groups, first=not block, stride=stride)
            maps[x.stride] = x
    return Features(name, maps)


def _res2net_block(net: Net, x: Map, width: int, out: int, *, groups: int, first: bool, stride: int) -> Map:
    """The first block of a stage convolves its slices separately; the others add each result to the next slice."""
    identity = net.conv(x, out, stride=stride, activation="linear") if first else x
    wide = net.conv(x, 4 * width)
    results: list[Map] = []
    for index in range(3):
        piece = net.split(wide, index, 4)
        if results and not first:
            piece = net.shortcut(piece, results[-1], "linear")
        results.append(net.conv(piece, width, 3, stride=stride, groups=groups))
    rest = net.split(wide, 3, 4)
    if stride > 1:
        rest = net.maxpool(rest, 3, stride=stride, padding=2)
    merged = net.route(*results, rest)
    return net.shortcut(net.conv(merged, out, activation="linear"), identity)


def _padded_stem(net: Net) -> Map:
    net.part("stem")
    return net.maxpool(net.conv(net.input, 64, 7, stride=2), 3, stride=2, padding=1)

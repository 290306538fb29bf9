"""ResNet-10 and ResNet-152, and a CSPResNet-10.

ResNet-10 is the CSPNet authors' public cfg, ResNet-152 the residual network paper's table (arXiv 1512.03385).
CSPResNet-10's table is not public; ours keeps to the paper's description.
"""

from __future__ import annotations

from compose.backbones.resnext import stem
from compose.features import Features
from compose.net import Map, Net


def resnet10(net: Net) -> Features:
    """One block of two 3x3 convolutions to a stage; the identity joins over the channels it has."""
    x = stem(net)
    maps = {}
    for stage, width in enumerate((64, 128, 256, 512)):
        net.part(f"stage {stage + 1}")
        identity = net.subsample(x, 2) if stage else x
        first = net.conv(x, width, 3, stride=2 if stage else 1)
        x = net.shortcut(net.conv(first, width, 3, activation="linear"), identity)
        maps[x.stride] = x
    return Features("resnet10", maps)


def resnet152(net: Net) -> Features:
    """Bottleneck stages of 3, 8, 36 and 3 blocks; 1x1 projections, and strides in the first 1x1, as in the paper."""
    with net.using("relu"):
        net.part("stem")
        x = net.maxpool(net.conv(net.input, 64, 7, stride=2), 3, stride=2, padding=1)
        maps = {}
        for stage, (width, blocks) in enumerate(((64, 3), (128, 8), (256, 36), (512, 3))):
            net.part(f"stage {stage + 1}: {blocks} blocks")
            for block in range(blocks):
                x = _projected_bottleneck(net, x, width, stride=2 if stage and not block else 1)
            maps[x.stride] = x
    return Features("resnet152", maps)


def _projected_bottleneck(net: Net, x: Map, width: int, *, stride: int) -> Map:
    out = 4 * width
    identity = x if x.channels == out else net.conv(x, out, stride=stride, activation="linear")
    inner = net.conv(net.conv(x, width, stride=stride), width, 3)
    return net.shortcut(net.conv(inner, out, activation="linear"), identity)


PAST = (16, 32, 64, 128)
THROUGH = (80, 48, 112, 272)


def cspresnet10(net: Net) -> Features:
    """A quarter of each stage's width passes by its residual block; the second transition stands before the pooling."""
    x = stem(net)
    maps = {}
    for stage, (width, past_width, block_width) in enumerate(zip((64, 128, 256, 512), PAST, THROUGH, strict=True)):
        if stage:
            x = net.maxpool(x)
        net.part(f"stage {stage + 1}: {past_width} channels pass by the block")
        past = net.conv(x, past_width)
        through = net.conv(x, block_width)
        inner = net.conv(net.conv(through, block_width, 3), block_width, 3, activation="linear")
        through = net.conv(net.shortcut(inner, through), block_width)
        x = net.conv(net.route(through, past), width)
        maps[x.stride] = x
    return Features("cspresnet10", maps)

"""DenseNet (arXiv 1608.06993), DenseNet-201-Elastic (arXiv 1812.05262) with its CSP form, and HarDNet-138s.

DenseNet-201 is published as a Darknet cfg. The others follow the tables in their papers, in Darknet's order: convolution,
batch norm, activation. The table of CSPDenseNet-201-Elastic is not public, so its widths are fitted, as are those of
HarDNet-138s, whose harmonic block is public (arXiv 1909.00948) and whose depth follows from its name.
"""

from __future__ import annotations

from compose.blocks import dense_block
from compose.net import Features, Map, Net

GROWTH = 32


def densenet40(net: Net) -> Features:
    """The CIFAR network with k = 12: three dense blocks of 12 plain 3x3 layers."""
    net.part("stem")
    x = net.conv(net.input, 16, 3)
    maps = {}
    for stage in range(3):
        if stage:
            x = net.maxpool(net.conv(x, x.channels))
        net.part(f"dense block {stage + 1}: 12 layers")
        for _ in range(12):
            x = net.route(net.conv(x, 12, 3), x)
        maps[x.stride] = x
    return Features("densenet40", maps)


def densenet(net: Net, layers: tuple[int, ...], *, growth: int = GROWTH) -> Features:
    """Dense blocks of `layers` layers; transitions halve the channels."""
    x = _stem(net, 2 * growth)
    maps = {}
    for stage, count in enumerate(layers):
        if stage:
            x = net.maxpool(net.conv(x, x.channels // 2))
        net.part(f"dense block {stage + 1}: {count} layers")
        x = dense_block(net, x, count, 4 * growth, growth)
        maps[x.stride] = x
    return Features("densenet", maps)


def densenet201(net: Net) -> Features:
    """As published for Darknet: 2x2 pooling after the stem, and a last transition to 512 channels instead of half."""
    net.part("stem")
    x = net.maxpool(net.conv(net.input, 64, 7, stride=2))
    maps = {}
    for stage, (count, transition) in enumerate(((6, 128), (12, 256), (48, 512), (32, None))):
        net.part(f"dense block {stage + 1}: {count} layers")
        x = dense_block(net, x, count, 4 * GROWTH, GROWTH)
        maps[x.stride] = x
        if transition:
            x = net.maxpool(net.conv(x, transition))
    return Features("densenet201", maps)


ELASTIC_LAYERS = (10, 20, 40, 30)


def densenet201_elastic(net: Net) -> Features:
    """Every dense layer except those at /32 has a second path at half the resolution."""
    x = _stem(net, 64)
    maps = {}
    for stage, layers in enumerate(ELASTIC_LAYERS):
        if stage:
            x = net.maxpool(net.conv(x, x.channels // 2))
        net.part(f"dense block {stage + 1}: {layers} elastic layers")
        x = _elastic_block(net, x, layers, 2 * GROWTH, GROWTH)
        maps[x.stride] = x
    return Features("densenet201-elastic", maps)


CSP_BASES = (64, 192, 416, 848)
CSP_TRANSITIONS = (48, 112, 240, 1264)
CSP_LAST = 1808


def cspdensenet201_elastic(net: Net) -> Features:
    """In each stage, half of the channels bypass the elastic block."""
    x = _stem(net, 64)
    maps = {}
    for stage, (layers, base) in enumerate(zip(ELASTIC_LAYERS, CSP_BASES, strict=True)):
        if stage:
            x = net.maxpool(x)
        net.part(f"stage {stage + 1}: half of {base} channels bypasses {layers} elastic layers")
        bypass = net.conv(x, base // 2)
        through = _elastic_block(net, net.conv(x, base // 2), layers, 2 * GROWTH, GROWTH)
        x = net.route(net.conv(through, CSP_TRANSITIONS[stage]), bypass)
        maps[x.stride] = x
    net.part("last transition")
    maps[x.stride] = net.conv(x, CSP_LAST)
    return Features("cspdensenet201-elastic", maps)


def _elastic_block(net: Net, x: Map, layers: int, bottleneck: int, growth: int) -> Map:
    half_resolution = x.stride < 32
    for _ in range(layers):
        full = net.conv(net.conv(x, bottleneck), growth, 3)
        coarse = net.conv(net.conv(net.maxpool(x) if half_resolution else x, bottleneck), growth, 3)
        new = net.shortcut(net.upsample(coarse) if half_resolution else coarse, full, "linear")
        x = net.route(new, x)
    return x


def _stem(net: Net, channels: int) -> Map:
    net.part("stem")
    return net.maxpool(net.conv(net.input, channels, 7, stride=2), 3, stride=2, padding=1)


HARMONIC_MULTIPLIER = 1.6
HARMONIC_STAGES = (
    (8, 22, 128, True),
    (16, 18, 192, False),
    (16, 20, 256, True),
    (16, 22, 320, False),
    (32, 28, 480, False),
    (36, 32, 720, True),
    (4, 256, 1280, False),
)
"""Per block: layers, growth rate, output channels, and whether pooling follows."""


def hardnet138s(net: Net) -> Features:
    """Seven harmonic dense blocks, each followed by a 1x1 convolution."""
    with net.using("relu"):
        net.part("stem")
        x = net.conv(net.conv(net.input, 32, 3, stride=2), 64, 3)
        x = net.maxpool(x, 3, stride=2, padding=1)
        maps = {}
        for number, (layers, growth, width, pool) in enumerate(HARMONIC_STAGES, 1):
            net.part(f"harmonic block {number}: {layers} layers")
            x = net.conv(_harmonic_block(net, x, layers, growth), width)
            maps[x.stride] = x
            if pool:
                x = net.maxpool(x)
    return Features("hardnet138s", maps)


def _harmonic_block(net: Net, x: Map, layers: int, growth: int) -> Map:
    """Layer i reads layers i - 2^j for every 2^j that divides i; odd layers and the last one form the output."""
    outputs = [x]
    for layer in range(1, layers + 1):
        reads = [layer - 2**j for j in range(layer.bit_length()) if layer % 2**j == 0]
        width = 2 * int((growth * HARMONIC_MULTIPLIER ** (len(reads) - 1) + 1) / 2)
        source = outputs[reads[0]] if len(reads) == 1 else net.route(*(outputs[read] for read in reads))
        outputs.append(net.conv(source, width, 3))
    return net.route(*(outputs[layer] for layer in range(1, layers + 1) if layer % 2 or layer == layers))

"""DenseNet-40 and -264 (arXiv 1608.06993), DenseNet-201-Elastic (arXiv 1812.05262), and the latter's CSP form.

The first three follow the papers' public tables in Darknet's order convolution, batch norm, activation. The CSP form's
table is not public; ours keeps to the paper's description.
"""

from __future__ import annotations

from compose.blocks import dense_block
from compose.features import Features
from compose.net import Map, Net

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


def densenet264(net: Net) -> Features:
    """Dense blocks of 6, 12, 64 and 48 layers; transitions halve the channels."""
    x = _stem(net)
    maps = {}
    for stage, layers in enumerate((6, 12, 64, 48)):
        if stage:
            x = net.maxpool(net.conv(x, x.channels // 2))
        net.part(f"dense block {stage + 1}: {layers} layers")
        x = dense_block(net, x, layers, 4 * GROWTH, GROWTH)
        maps[x.stride] = x
    return Features("densenet264", maps)


ELASTIC_LAYERS = (10, 20, 40, 30)


def densenet201_elastic(net: Net) -> Features:
    """Every dense layer has a second path at half the resolution, except at /32."""
    x = _stem(net)
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
    """Half of each stage's channels passes by its elastic block, as in CSPPeleeNet."""
    x = _stem(net)
    maps = {}
    for stage, (layers, base) in enumerate(zip(ELASTIC_LAYERS, CSP_BASES, strict=True)):
        if stage:
            x = net.maxpool(x)
        net.part(f"stage {stage + 1}: half of {base} channels passes by {layers} elastic layers")
        past = net.conv(x, base // 2)
        through = _elastic_block(net, net.conv(x, base // 2), layers, 2 * GROWTH, GROWTH)
        x = net.route(net.conv(through, CSP_TRANSITIONS[stage]), past)
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


def _stem(net: Net) -> Map:
    net.part("stem")
    return net.maxpool(net.conv(net.input, 64, 7, stride=2), 3, stride=2, padding=1)

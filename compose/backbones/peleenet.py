"""PeleeNet (Wang et al., 2018, arXiv 1804.06882), its sparse and its grouped form.

The layer table is the authors' published one.
"""

from __future__ import annotations

from compose.blocks import squeeze_excite, two_way_block, two_way_dense
from compose.features import Features
from compose.net import Map, Net

LAYERS = (3, 4, 8, 6)
BOTTLENECKS = (16, 32, 64, 64)
SQUEEZE = (4, 8, 16)
"""Hidden channels of the SE form after stages 1, 2 and 3; position and width are our choice."""


def stem(net: Net) -> Map:
    """Two branches from the input to /4: pooling, and a convolution; 64 channels."""
    net.part("stem")
    x = net.conv(net.input, 32, 3, stride=2)
    pooled = net.maxpool(x)
    convolved = net.conv(net.conv(x, 16), 32, 3, stride=2)
    return net.route(pooled, convolved)


def peleenet(net: Net, *, group_width: int | None = None, squeeze: bool = False) -> Features:
    """Dense stages with two-way layers; `group_width` makes PeleeNeXt, `squeeze` the SE form."""
    x = net.conv(stem(net), 32)
    maps = {}
    for stage, (layers, bottleneck) in enumerate(zip(LAYERS, BOTTLENECKS, strict=True)):
        if stage:
            x = net.maxpool(x)
        net.part(f"stage {stage + 1}: {layers} two-way dense layers, transition")
        x = two_way_block(net, x, layers, bottleneck, group_width=group_width)
        x = net.conv(x, x.channels)
        if squeeze and stage < len(SQUEEZE):
            x = squeeze_excite(net, x, SQUEEZE[stage])
        maps[x.stride] = x
    return Features("peleenet", maps)


def speleenet(net: Net) -> Features:
    """SparseNet's connections (arXiv 1801.05895): layer j reads the outputs 1, 2, 4, 8, ... layers before it."""
    x = net.conv(stem(net), 32)
    maps = {}
    for stage, (layers, bottleneck) in enumerate(zip(LAYERS, BOTTLENECKS, strict=True)):
        if stage:
            x = net.maxpool(x)
        net.part(f"stage {stage + 1}: {layers} sparsely connected two-way layers, transition")
        x = _sparse_block(net, x, layers, bottleneck)
        maps[x.stride] = x
    return Features("speleenet", maps)


def _sparse_block(net: Net, base: Map, layers: int, bottleneck: int) -> Map:
    outputs: list[tuple[Map, ...]] = [(base,)]
    for layer in range(1, layers + 1):
        offsets = [offset for offset in (1, 2, 4, 8) if offset <= layer]
        read = [single for offset in reversed(offsets) for single in outputs[layer - offset]]
        x = read[0] if len(read) == 1 else net.route(*read)
        outputs.append(two_way_dense(net, x, bottleneck))
    merged = net.route(*(single for output in outputs for single in output))
    return net.conv(merged, merged.channels)

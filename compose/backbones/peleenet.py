"""PeleeNet (Wang et al., 2018, arXiv 1804.06882) as in its authors' public code, and its sparse and grouped forms."""

from __future__ import annotations

from compose.blocks import squeeze_excite, two_way_block, two_way_dense
from compose.net import Features, Map, Net

LAYERS = (3, 4, 8, 6)
BOTTLENECKS = (16, 32, 64, 64)
SQUEEZE = (4, 8, 16)
"""Hidden channels of SE after stages 1, 2 and 3; positions and widths are fitted."""


def stem(net: Net, *, pooled_conv: bool = False) -> Map:
    """Two branches from /2 to /4, pooling and convolutions, to 64 channels; `pooled_conv` adds a 1x1 after the pooling."""
    net.part("stem")
    x = net.conv(net.input, 32, 3, stride=2)
    pooled = net.maxpool(x)
    if pooled_conv:
        pooled = net.conv(pooled, 32)
    convolved = net.conv(net.conv(x, 16), 32, 3, stride=2)
    return net.route(pooled, convolved)


def peleenet(net: Net, *, group_width: int | None = None, squeeze: bool = False, partial: bool = False) -> Features:
    """Stages of two-way dense layers; `group_width` makes it PeleeNeXt, `squeeze` adds SE.

    With `partial`, half of each stage's channels bypass its dense layers, as in the PRN repository's PartialPelee.
    """
    x = net.conv(stem(net), 32)
    maps = {}
    for stage, (layers, bottleneck) in enumerate(zip(LAYERS, BOTTLENECKS, strict=True)):
        if stage:
            x = net.maxpool(x)
        net.part(f"stage {stage + 1}: {layers} two-way dense layers, transition")
        if partial:
            bypass, dense = net.split(x, 0, 2), net.split(x, 1, 2)
            x = net.route(two_way_block(net, dense, layers, bottleneck), bypass)
        else:
            x = two_way_block(net, x, layers, bottleneck, group_width=group_width)
        x = net.conv(x, x.channels)
        if squeeze and stage < len(SQUEEZE):
            x = squeeze_excite(net, x, SQUEEZE[stage])
        maps[x.stride] = x
    return Features("peleenet", maps)


def speleenet(net: Net) -> Features:
    """PeleeNet with SparseNet's connections (arXiv 1801.05895): each layer reads the outputs 1, 2, 4, 8, ... layers back."""
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

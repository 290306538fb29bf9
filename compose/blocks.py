"""Blocks that several backbones and heads share."""

from __future__ import annotations

from compose.net import Map, Net


def two_way_dense(
    net: Net, x: Map, bottleneck: int, growth: int = 32, *, group_width: int | None = None
) -> tuple[Map, Map]:
    """The two new maps of PeleeNet's dense layer, one and two 3x3 convolutions deep, with growth / 2 channels each.

    With `group_width`, the 3x3 convolutions are grouped, with this many channels per group (PeleeNeXt).
    """
    half = growth // 2
    groups = bottleneck // group_width if group_width else 1
    inner = half // group_width if group_width else 1
    short = net.conv(net.conv(x, bottleneck), half, 3, groups=groups)
    long = net.conv(net.conv(net.conv(x, bottleneck), half, 3, groups=groups), half, 3, groups=inner)
    return short, long


def two_way_block(
    net: Net, x: Map, layers: int, bottleneck: int, growth: int = 32, *, group_width: int | None = None
) -> Map:
    """`layers` two-way dense layers; each reads all maps before it."""
    for _ in range(layers):
        x = net.route(x, *two_way_dense(net, x, bottleneck, growth, group_width=group_width))
    return x


def dense_block(net: Net, x: Map, layers: int, bottleneck: int, growth: int) -> Map:
    """DenseNet's block: layers of a 1x1 and a 3x3, each concatenating its output with its input."""
    for _ in range(layers):
        new = net.conv(net.conv(x, bottleneck), growth, 3)
        x = net.route(new, x)
    return x


def squeeze_excite(net: Net, x: Map, hidden: int) -> Map:
    """SE: global average, 1x1 to `hidden`, 1x1 back with logistic, and `x` scaled by it per channel."""
    gate = net.conv(net.avgpool(x), hidden, normalize=False)
    return net.gate(x, net.conv(gate, x.channels, activation="logistic", normalize=False))


def spatial_pyramid(net: Net, x: Map) -> Map:
    """SPP: concatenates max pooling of `x` over 13x13, 9x9 and 5x5 windows with `x` itself."""
    pools = [net.maxpool(x, size, stride=1) for size in (5, 9, 13)]
    return net.route(*reversed(pools), x)


def tower(net: Net, x: Map, width: int, depth: int) -> Map:
    """`depth` convolutions, alternating between 1x1 to `width` and 3x3 to twice `width`."""
    for layer in range(depth):
        x = net.conv(x, 2 * width, 3) if layer % 2 else net.conv(x, width)
    return x

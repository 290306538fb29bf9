"""The CSPPeleeNet and CSPDenseNet "Reference" networks of CSPNet (Tables 3 and 4) and their "b" forms.

The authors never published the layer tables. From differences of printed rows follows a last convolution of 512
channels that is 3x3, and 1x1 in the "b" forms; everything else is our design, tuned to the printed totals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compose.blocks import dense_block, two_way_block
from compose.features import Features
from compose.net import Map, Net

BASES = (64, 64, 128, 256)
OUTPUTS = (64, 128, 256, 512)
LAST = 512
Block = Callable[[Net, Map, int, int, int], Map]
Table = Sequence[tuple[int, int, int]]
"""Per stage: dense layers, bottleneck, growth."""

PELEE: Table = ((3, 32, 16), (3, 64, 32), (5, 64, 64), (5, 64, 64))
DENSE: Table = ((4, 32, 8), (4, 32, 32), (6, 32, 32), (8, 32, 32))


def csppeleenet_ref(net: Net, *, last_size: int = 3) -> Features:
    """Two-way dense layers; `last_size` 1 is the "b" form."""
    return _build("csppeleenet-ref", net, PELEE, two_way_block, last_size)


def cspdensenet_ref(net: Net, *, last_size: int = 3) -> Features:
    """DenseNet's own layers; `last_size` 1 is the "b" form."""
    return _build("cspdensenet-ref", net, DENSE, dense_block, last_size)


def _build(name: str, net: Net, table: Table, block: Block, last_size: int) -> Features:
    net.part("stem")
    x = net.maxpool(net.conv(net.input, 16, 3))
    x = net.conv(net.maxpool(net.conv(x, 32, 3)), 64, 3)
    maps = {}
    for stage, ((layers, bottleneck, growth), base, output) in enumerate(zip(table, BASES, OUTPUTS, strict=True)):
        if stage:
            x = net.maxpool(x)
        net.part(f"stage {stage + 1}: half of {base} channels passes by {layers} dense layers")
        past = net.conv(x, base // 2)
        through = block(net, net.conv(x, base // 2), layers, bottleneck, growth)
        x = net.route(net.conv(through, output - base // 2), past)
        maps[x.stride] = x
    net.part("last convolution")
    maps[x.stride] = net.conv(x, LAST, last_size)
    return Features(name, maps)

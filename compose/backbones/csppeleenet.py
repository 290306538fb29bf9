"""CSPPeleeNet (CSPNet, arXiv 1911.11929, Table 1 and 3).

The authors never published its layer table. The form is the paper's (partial dense blocks and partial transition
layers on PeleeNet's stages); the widths of the first transitions are ours, tuned so that parameters and BFLOPs
meet the printed ones.
"""

from __future__ import annotations

from collections.abc import Mapping

from compose.backbones.peleenet import BOTTLENECKS, LAYERS, stem
from compose.blocks import squeeze_excite, two_way_block
from compose.features import Features
from compose.net import Net

BASES = (32, 128, 256, 512)
LAST = 704
TRANSITIONS: Mapping[float, tuple[int, int, int, int]] = {
    0.25: (112, 208, 416, 544),
    0.5: (104, 200, 384, 432),
    0.75: (112, 168, 344, 336),
}


def csppeleenet(net: Net, gamma: float = 0.5, *, squeeze: int | None = None) -> Features:
    """The part `gamma` of each stage's channels passes by its dense block; `squeeze` adds SE (hidden channels)."""
    x = stem(net)
    maps = {}
    for stage, (base, layers, bottleneck) in enumerate(zip(BASES, LAYERS, BOTTLENECKS, strict=True)):
        if stage:
            x = net.maxpool(x)
        net.part(f"stage {stage + 1}: {round(100 * gamma)} % of {base} channels pass by {layers} two-way dense layers")
        past = net.conv(x, round(gamma * base))
        through = two_way_block(net, net.conv(x, base - past.channels), layers, bottleneck)
        x = net.route(net.conv(through, TRANSITIONS[gamma][stage]), past)
        if squeeze:
            x = squeeze_excite(net, x, squeeze)
        maps[net.stride(x)] = x
    net.part("last transition")
    maps[net.stride(x)] = net.conv(x, LAST)
    return Features("csppeleenet", maps)

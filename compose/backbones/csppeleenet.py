"""CSPPeleeNet (CSPNet, arXiv 1911.11929, Tables 1 and 3) and its two ablations, fusion first and fusion last.

The authors never published the layer tables. The forms are the paper's (Figure 3: partial dense blocks on PeleeNet's
stages, and where the transition stands relative to the concatenation); the widths of the transitions are ours, tuned
so that the counts meet the printed ones. The two 1x1 convolutions that split a stage's input in two paths are the
second partial transition of the stage before.
"""

from __future__ import annotations

from collections.abc import Mapping

from compose.backbones.peleenet import BOTTLENECKS, LAYERS, SQUEEZE, stem
from compose.blocks import squeeze_excite, two_way_block
from compose.features import Features
from compose.net import Map, Net

BASES = (32, 128, 256, 512)
LAST = 704
Widths = Mapping[float, tuple[int, ...]]
TRANSITIONS: Widths = {
    0.25: (112, 208, 416, 544),
    0.5: (104, 200, 384, 432),
    0.75: (112, 168, 344, 336),
}
FIRST: Widths = {0.25: (88, 168, 328), 0.5: (64, 136, 276), 0.75: (48, 96, 208)}
LAST_FUSION: Widths = {
    0.25: (96, 184, 376, 496),
    0.5: (96, 160, 328, 392),
    0.75: (96, 144, 288, 264),
}


def csppeleenet(net: Net, gamma: float = 0.5, *, squeeze: bool = False) -> Features:
    """Transition, concatenation, transition; `squeeze` is the SE form."""
    x = stem(net)
    maps = {}
    for stage, width in enumerate(TRANSITIONS[gamma]):
        past, through = _partial_dense(net, x, stage, gamma)
        x = net.route(net.conv(through, width), past)
        if squeeze and stage < len(SQUEEZE):
            x = squeeze_excite(net, x, SQUEEZE[stage])
        maps[x.stride] = x
    net.part("last transition")
    maps[x.stride] = net.conv(x, LAST)
    return Features("csppeleenet", maps)


def fusion_first(net: Net, gamma: float) -> Features:
    """Concatenation, then one transition; none after the last stage."""
    x = stem(net)
    maps = {}
    for stage, width in enumerate((*FIRST[gamma], None)):
        past, through = _partial_dense(net, x, stage, gamma)
        x = net.route(through, past)
        x = net.conv(x, width) if width else x
        maps[x.stride] = x
    return Features("csppeleenet-first", maps)


def fusion_last(net: Net, gamma: float) -> Features:
    """One transition of the dense path, then concatenation."""
    x = stem(net)
    maps = {}
    for stage, width in enumerate(LAST_FUSION[gamma]):
        past, through = _partial_dense(net, x, stage, gamma)
        x = net.route(net.conv(through, width), past)
        maps[x.stride] = x
    return Features("csppeleenet-last", maps)


def _partial_dense(net: Net, x: Map, stage: int, gamma: float) -> tuple[Map, Map]:
    """The part `gamma` of the stage's channels, and the output of the dense block on the rest."""
    base, layers = BASES[stage], LAYERS[stage]
    if stage:
        x = net.maxpool(x)
    net.part(f"stage {stage + 1}: {round(100 * gamma)} % of {base} channels pass by {layers} two-way dense layers")
    past = net.conv(x, round(gamma * base))
    return past, two_way_block(net, net.conv(x, base - past.channels), layers, BOTTLENECKS[stage])

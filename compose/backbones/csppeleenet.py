"""CSPPeleeNet (CSPNet, arXiv 1911.11929), its fusion-first and fusion-last forms, and the "Reference" networks.

The authors published no layer tables. That of CSPPeleeNet is read off Figure 7, which plots the cost of every layer: each
layer is the simplest one with the cost of its bar. This leaves no width free, and the totals match the printed ones, as do
those of fusion last. No natural form is known for fusion first, so its transitions are fitted. For the Reference networks,
the printed rows determine only the last layer; the other widths are fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compose.backbones.peleenet import BOTTLENECKS, SQUEEZE, stem
from compose.blocks import dense_block, squeeze_excite, two_way_block
from compose.net import Features, Map, Net

LAYERS = (2, 4, 8, 4)
FITTED_TRANSITIONS = {0.25: (92, 184, 368), 0.5: (72, 144, 284), 0.75: (52, 102, 204)}
"""Fusion first: output channels of the transitions of stages 1 to 3, by gamma."""


def csppeleenet(net: Net, gamma: float = 0.5, *, squeeze: bool = False) -> Features:
    """Transition, concatenation, pooling, transition; `squeeze` adds SE. The map at /4 is that of the stem, for EFM."""
    x = stem(net, pooled_conv=True)
    maps = {x.stride: x}
    for stage in range(4):
        bypass, dense = _partial_dense(net, x, stage, gamma)
        x = net.route(net.conv(dense, dense.channels), bypass)
        if squeeze and stage < len(SQUEEZE):
            x = squeeze_excite(net, x, SQUEEZE[stage])
        maps.setdefault(x.stride, x)
        if stage < 3:
            x = net.conv(net.maxpool(x), x.channels)
    net.part("last transition")
    maps[x.stride] = net.conv(x, x.channels)
    return Features("csppeleenet", maps)


def fusion_last(net: Net, gamma: float) -> Features:
    """Transition, then concatenation: CSPPeleeNet without the transitions after pooling."""
    x = stem(net)
    maps = {}
    for stage in range(4):
        bypass, dense = _partial_dense(net, x, stage, gamma)
        x = net.route(net.conv(dense, dense.channels), bypass)
        maps[x.stride] = x
        if stage < 3:
            x = net.maxpool(x)
    net.part("last transition")
    maps[x.stride] = net.conv(x, x.channels)
    return Features("csppeleenet-last", maps)


def fusion_first(net: Net, gamma: float) -> Features:
    """Concatenation, then one transition."""
    x = stem(net)
    maps = {}
    for stage in range(4):
        bypass, dense = _partial_dense(net, x, stage, gamma)
        x = net.route(dense, bypass)
        x = net.conv(x, FITTED_TRANSITIONS[gamma][stage] if stage < 3 else x.channels)
        maps[x.stride] = x
        if stage < 3:
            x = net.maxpool(x)
    return Features("csppeleenet-first", maps)


def _partial_dense(net: Net, x: Map, stage: int, gamma: float) -> tuple[Map, Map]:
    """The bypass (the fraction `gamma` of the stage's channels, half in stage 1), and the dense block on the other channels."""
    base, layers = (64, 128, 256, 512)[stage], LAYERS[stage]
    bypassed = round((gamma if stage else 0.5) * base)
    net.part(f"stage {stage + 1}: {bypassed} of {base} channels bypass {layers} two-way dense layers")
    bypass = net.conv(x, bypassed)
    return bypass, two_way_block(net, net.conv(x, base - bypassed), layers, BOTTLENECKS[stage])


Block = Callable[[Net, Map, int, int, int], Map]
PELEE_STAGES = ((3, 32, 16), (3, 64, 32), (5, 64, 64), (5, 64, 64))
DENSE_STAGES = ((4, 32, 8), (4, 32, 32), (6, 32, 32), (8, 32, 32))
"""Per stage of the Reference networks: dense layers, bottleneck, growth."""


def csppeleenet_ref(net: Net, *, last_size: int = 3) -> Features:
    """Two-way dense layers; `last_size` 1 is the "b" form."""
    return _reference("csppeleenet-ref", net, PELEE_STAGES, two_way_block, last_size)


def cspdensenet_ref(net: Net, *, last_size: int = 3) -> Features:
    """DenseNet's layers; `last_size` 1 is the "b" form."""
    return _reference("cspdensenet-ref", net, DENSE_STAGES, dense_block, last_size)


def _reference(name: str, net: Net, stages: Sequence[tuple[int, int, int]], block: Block, last_size: int) -> Features:
    net.part("stem")
    x = net.maxpool(net.conv(net.input, 16, 3))
    x = net.conv(net.maxpool(net.conv(x, 32, 3)), 64, 3)
    maps = {}
    for stage, (layers, bottleneck, growth) in enumerate(stages):
        base, output = (64, 64, 128, 256)[stage], (64, 128, 256, 512)[stage]
        if stage:
            x = net.maxpool(x)
        net.part(f"stage {stage + 1}: half of {base} channels bypasses {layers} dense layers")
        bypass = net.conv(x, base // 2)
        dense = block(net, net.conv(x, base // 2), layers, bottleneck, growth)
        x = net.route(net.conv(dense, output - base // 2), bypass)
        maps[x.stride] = x
    net.part("last convolution")
    maps[x.stride] = net.conv(x, 512, last_size)
    return Features(name, maps)

"""Res2Net-50, 26w x 4s (Gao et al., arXiv 1904.01169). The layer table is public."""

from __future__ import annotations

from compose.features import Features
from compose.net import Map, Net

SCALES = 4


def res2net50(net: Net) -> Features:
    """ResNet-50 whose 3x3 is replaced by a chain over four slices of the channels."""
    with net.using("relu"):
        net.part("stem")
        x = net.maxpool(net.conv(net.input, 64, 7, stride=2), 3, stride=2, padding=1)
        maps = {}
        for stage, (width, blocks) in enumerate(((26, 3), (52, 4), (104, 6), (208, 3))):
            net.part(f"stage {stage + 1}: {blocks} blocks of {SCALES} slices of {width} channels")
            for block in range(blocks):
                x = _block(net, x, width, 256 * 2**stage, first=not block, stride=2 if stage and not block else 1)
            maps[x.stride] = x
    return Features("res2net50", maps)


def _block(net: Net, x: Map, width: int, out: int, *, first: bool, stride: int) -> Map:
    """The first block of a stage handles its slices one by one, the others add each result to the next slice."""
    identity = net.conv(x, out, stride=stride, activation="linear") if first else x
    wide = net.conv(x, SCALES * width)
    results: list[Map] = []
    for scale in range(SCALES - 1):
        piece = net.split(wide, scale, SCALES)
        if results and not first:
            piece = net.shortcut(piece, results[-1], "linear")
        results.append(net.conv(piece, width, 3, stride=stride))
    rest = net.split(wide, SCALES - 1, SCALES)
    if stride > 1:
        rest = net.maxpool(rest, 3, stride=stride, padding=2)
    merged = net.route(*results, rest)
    return net.shortcut(net.conv(merged, out, activation="linear"), identity)

"""HarDNet-138s (arXiv 1909.00948).

The block is the authors' public one (harmonic links, widths growing with the number of links). The layer table of the
138s model is not public; depth follows from the name, growth rates and widths are ours, tuned to the printed totals.
"""

from __future__ import annotations

from compose.features import Features
from compose.net import Map, Net

MULTIPLIER = 1.6
STAGES = (
    (8, 22, 128, True),
    (16, 18, 192, False),
    (16, 20, 256, True),
    (16, 22, 320, False),
    (32, 28, 480, False),
    (36, 32, 720, True),
    (4, 256, 1280, False),
)
"""Per block: layers, growth rate, channels after it, pooling after it."""


def hardnet138s(net: Net) -> Features:
    """Seven harmonic dense blocks, each followed by a 1x1."""
    with net.using("relu"):
        net.part("stem")
        x = net.conv(net.conv(net.input, 32, 3, stride=2), 64, 3)
        x = net.maxpool(x, 3, stride=2, padding=1)
        maps = {}
        for number, (layers, growth, width, pool) in enumerate(STAGES, 1):
            net.part(f"harmonic block {number}: {layers} layers")
            x = net.conv(_harmonic_block(net, x, layers, growth), width)
            maps[x.stride] = x
            if pool:
                x = net.maxpool(x)
    return Features("hardnet138s", maps)


def _harmonic_block(net: Net, x: Map, layers: int, growth: int) -> Map:
    """Layer i reads layers i - 2^j for every 2^j that divides i; odd layers and the last one leave the block."""
    outputs = [x]
    for layer in range(1, layers + 1):
        reads = [layer - 2**j for j in range(layer.bit_length()) if layer % 2**j == 0]
        width = 2 * int((growth * MULTIPLIER ** (len(reads) - 1) + 1) / 2)
        source = outputs[reads[0]] if len(reads) == 1 else net.route(*(outputs[read] for read in reads))
        outputs.append(net.conv(source, width, 3))
    return net.route(*(outputs[layer] for layer in range(1, layers + 1) if layer % 2 or layer == layers))

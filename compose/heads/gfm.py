"""Global fusion model (GFM, CSPNet Figure 6): every scale reads the maps of all scales, compressed by Maxout.

The paper gives the idea and the BFLOPs, not the layer table; the widths are ours, tuned to the printed total.
"""

from __future__ import annotations

from dataclasses import dataclass

from compose.features import Features
from compose.heads.yolo import COCO, Recipe, detect
from compose.net import Map, Net

OUTPUTS = {32: 512, 16: 256, 8: 128}


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Channels of the maps of /32, /16 and /8 after Maxout; each must divide the channels before it."""

    coarse: int = 32
    fine: int = 32
    finest: int = 32


PELEE = Widths(finest=44)


def gfm(net: Net, features: Features, recipe: Recipe = COCO, *, widths: Widths = Widths()) -> None:
    """Three scales, each a 3x3 on the concatenation of all three compressed maps brought to its size."""
    finest, fine, coarse = features.take("gfm", (8, 16, 32))
    net.part("Maxout of /32, /16 and /8")
    small = {32: net.maxout(net.conv(coarse, 256), widths.coarse)}
    small[16] = net.maxout(fine, widths.fine)
    small[8] = net.maxout(finest, widths.finest)
    for stride, filters in OUTPUTS.items():
        net.part(f"global fusion at /{stride}")
        fused = net.route(*(_to_stride(net, x, stride) for x in small.values()))
        detect(net, net.conv(fused, filters, 3), recipe)


def _to_stride(net: Net, x: Map, stride: int) -> Map:
    if x.stride > stride:
        return net.upsample(x, x.stride // stride)
    while x.stride < stride:
        x = net.maxpool(x)
    return x

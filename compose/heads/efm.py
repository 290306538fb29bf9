"""Exact fusion model (EFM, CSPNet section 3.3) with optional SAM, SPP and GIoU.

The paper gives the idea (a pyramid; each scale fuses the maps of the scales before and after it, each compressed by
Maxout before the concatenation) and the totals, not the layer table. The widths are ours, tuned to the printed totals.
"""

from __future__ import annotations

from dataclasses import dataclass

from compose.blocks import spatial_pyramid
from compose.features import Features
from compose.heads.yolo import COCO, Recipe, detect
from compose.net import Map, Net

OUTPUTS = {32: 256, 16: 256, 8: 128}


@dataclass(frozen=True, kw_only=True)
class Widths:
    """The free widths of the pyramid."""

    fine_lateral: int = 128
    """1x1 on the backbone's /16 map."""
    fine: int = 128
    """1x1 after the sum at /16."""
    fine_out: int = 128
    """3x3 after it: the /16 map of the pyramid."""
    down_path: int = 64
    """1x1 from the /16 map on its way to /8."""
    finest_lateral: int = 64
    """1x1 on the backbone's /8 map."""


NATURAL = Widths()
PELEE = Widths(down_path=62)
REFERENCE = Widths(fine_lateral=160, fine=192, fine_out=96, finest_lateral=128)


def efm(
    net: Net,
    features: Features,
    recipe: Recipe = COCO,
    *,
    widths: Widths = NATURAL,
    attention: bool = True,
    pyramid: bool = False,
) -> None:
    """Three scales; `attention` adds SAM before each prediction, `pyramid` SPP on the compressed /32 map."""
    p3, p4, p5 = _pyramid(net, features, widths)
    net.part("exact fusion at /32: Maxout of /32, and /16")
    own = net.maxout(p5, 128)
    if pyramid:
        own = net.maxout(spatial_pyramid(net, own), 128)
    _predict(net, net.route(own, net.maxpool(p4)), attention, recipe)
    net.part("exact fusion at /16: Maxout of /32, /16 and /8")
    coarse = net.upsample(net.maxout(p5, 16))
    own = net.maxout(p4, 32)
    _predict(net, net.route(coarse, own, net.maxpool(net.maxout(p3, 16))), attention, recipe)
    net.part("exact fusion at /8: Maxout of /16 and of /8")
    coarse = net.upsample(net.maxout(p4, 16))
    _predict(net, net.route(coarse, net.maxout(p3, 16)), attention, recipe)


def _pyramid(net: Net, features: Features, widths: Widths) -> tuple[Map, Map, Map]:
    """Maps at /8, /16, /32 of 64, `widths.fine_out` and 256 channels."""
    finest, fine, coarse = features.take("efm", (8, 16, 32))
    net.part("pyramid at /32")
    p5 = net.conv(net.conv(coarse, 256), 256, 3)
    net.part("pyramid at /16: sum with the backbone")
    up = net.upsample(net.conv(p5, widths.fine_lateral))
    p4 = net.shortcut(net.conv(fine, widths.fine_lateral), up, "linear")
    p4 = net.conv(net.conv(p4, widths.fine), widths.fine_out, 3)
    net.part("pyramid at /8: beside the backbone")
    up = net.upsample(net.conv(p4, widths.down_path))
    p3 = net.route(up, net.conv(finest, widths.finest_lateral))
    return net.conv(net.conv(p3, 64), 64, 3), p4, p5


def _predict(net: Net, fused: Map, attention: bool, recipe: Recipe) -> None:
    width = OUTPUTS[fused.stride]
    x = net.conv(fused, width, 3)
    if attention:
        x = net.gate(x, net.conv(x, width, activation="logistic"))
    detect(net, x, recipe)

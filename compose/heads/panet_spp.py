"""PANet with spatial pyramid pooling, as published with CSPResNeXt50-PANet-SPP."""

from __future__ import annotations

from compose.blocks import spatial_pyramid, tower
from compose.features import Features
from compose.heads.yolo import COCO, Recipe, detect
from compose.net import Map, Net


def panet_spp(net: Net, features: Features, recipe: Recipe = COCO) -> None:
    """SPP at /32, a path up to /8, a path down again, and a [yolo] layer at each scale on the way down."""
    finest, fine, coarse = features.take("panet-spp", (8, 16, 32))
    net.part("neck: spatial pyramid pooling at /32")
    top = tower(net, spatial_pyramid(net, tower(net, coarse, 512, 3)), 512, 3)
    net.part("neck: path up to /16")
    middle = tower(net, _merge_up(net, top, fine, 256), 256, 5)
    net.part("neck: path up to /8")
    x = tower(net, _merge_up(net, middle, finest, 128), 128, 5)
    net.part("head at /8")
    detect(net, net.conv(x, 256, 3), recipe)
    net.part("head at /16, reached by the path down")
    x = tower(net, _merge_down(net, x, middle, 256), 256, 5)
    detect(net, net.conv(x, 512, 3), recipe)
    net.part("head at /32, reached by the path down")
    x = tower(net, _merge_down(net, x, top, 512), 512, 5)
    detect(net, net.conv(x, 1024, 3), recipe)


def _merge_up(net: Net, coarse: Map, lateral: Map, filters: int) -> Map:
    up = net.upsample(net.conv(coarse, filters))
    return net.route(net.conv(lateral, filters), up)


def _merge_down(net: Net, fine: Map, lateral: Map, filters: int) -> Map:
    return net.route(net.conv(fine, filters, 3, stride=2), lateral)

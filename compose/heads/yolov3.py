"""YOLOv3's three-scale head, with and without spatial pyramid pooling, and the two-scale tiny head. Public tables."""

from __future__ import annotations

from compose.blocks import spatial_pyramid, tower
from compose.features import Features
from compose.heads.yolo import COCO, TINY_ORIGINAL, Recipe, detect
from compose.net import Map, Net


def yolov3(net: Net, features: Features, recipe: Recipe = COCO, *, pyramid: bool = False) -> None:
    """Towers of 1x1 and 3x3 at /32, /16, /8, each joined to the backbone by concatenation; `pyramid` is the SPP form."""
    finest, fine, coarse = features.take("yolov3", (8, 16, 32))
    net.part("head at /32")
    if pyramid:  # noqa: SIM108
        x = tower(net, spatial_pyramid(net, tower(net, coarse, 512, 3)), 512, 3)
    else:
        x = tower(net, coarse, 512, 5)
    detect(net, net.conv(x, 1024, 3), recipe)
    x = _finer(net, x, fine, 256, recipe)
    _finer(net, x, finest, 128, recipe)


def yolov3_tiny(net: Net, features: Features, recipe: Recipe = TINY_ORIGINAL) -> None:
    """Two scales, /32 and /16, one 3x3 each."""
    fine, coarse = features.take("yolov3-tiny", (16, 32))
    net.part("head at /32")
    x = net.conv(coarse, 256)
    detect(net, net.conv(x, 512, 3), recipe)
    net.part("head at /16")
    up = net.upsample(net.conv(x, 128))
    detect(net, net.conv(net.route(up, fine), 256, 3), recipe)


def _finer(net: Net, x: Map, lateral: Map, width: int, recipe: Recipe) -> Map:
    net.part(f"head at /{lateral.stride}")
    up = net.upsample(net.conv(x, width))
    x = tower(net, net.route(up, lateral), width, 5)
    detect(net, net.conv(x, 2 * width, 3), recipe)
    return x

"""Context enhancement (CEM) and spatial attention (SAM) after ThunderNet (arXiv 1903.11752), on three scales.

CSPNet compares with it in Table 2 without giving a layer table; this one is ours. There is no global-pooling branch.
"""

from __future__ import annotations

from compose.features import Features
from compose.heads.yolo import COCO, Recipe, detect
from compose.net import Map, Net

WIDTH = 128


def cem(net: Net, features: Features, recipe: Recipe = COCO, *, attention: bool = False) -> None:
    """Laterals of all scales summed at /16, a 3x3, and the result given back to each scale; `attention` adds SAM."""
    finest, fine, coarse = features.take("cem", (8, 16, 32))
    net.part("context: sum of all scales at /16")
    context = net.upsample(net.conv(coarse, WIDTH))
    context = net.shortcut(net.conv(fine, WIDTH), context, "linear")
    context = net.shortcut(net.maxpool(net.conv(finest, WIDTH)), context, "linear")
    context = net.conv(context, WIDTH, 3)
    net.part("head at /32")
    _predict(net, net.conv(net.maxpool(context), WIDTH, 3), attention, recipe)
    net.part("head at /16")
    _predict(net, net.conv(context, WIDTH, 3), attention, recipe)
    net.part("head at /8")
    _predict(net, net.upsample(context), attention, recipe)


def _predict(net: Net, x: Map, attention: bool, recipe: Recipe) -> None:
    if attention:
        x = net.gate(x, net.conv(x, WIDTH, activation="logistic"))
    detect(net, x, recipe)

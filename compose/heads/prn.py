"""Partial residual network heads (Wang et al., 2019): sums over common channels instead of concatenation.

The form is the published yolov3-tiny-prn; the third scale repeats it.
"""

from __future__ import annotations

from compose.features import Features
from compose.heads.yolo import COCO, TINY, Recipe, detect
from compose.net import Map, Net

COARSE = 256
FINE = 128


def prn(net: Net, features: Features, recipe: Recipe = TINY) -> None:
    """Two scales, /32 and /16."""
    fine, coarse = features.take("prn", (16, 32), at_least=FINE)
    _finer(net, _coarsest(net, coarse, recipe), fine, recipe)


def prn_three_scales(net: Net, features: Features, recipe: Recipe = COCO) -> None:
    """Three scales, /32, /16 and /8: the paper's PRN(31)."""
    finest, fine, coarse = features.take("prn31", (8, 16, 32), at_least=FINE)
    x = _finer(net, _coarsest(net, coarse, recipe), fine, recipe)
    _finer(net, x, finest, recipe)


def _coarsest(net: Net, x: Map, recipe: Recipe) -> Map:
    net.part("head at /32: partial residual")
    narrow = net.conv(x, COARSE)
    spatial = net.conv(narrow, COARSE, 3)
    detect(net, net.shortcut(spatial, narrow), recipe)
    return spatial


def _finer(net: Net, coarse: Map, lateral: Map, recipe: Recipe) -> Map:
    """As published, the next scale reads the 3x3 convolution before its sums, and the second sum adds the upsampled
    map itself."""
    net.part(f"head at /{lateral.stride}: partial residual from the coarser scale and the backbone")
    up = net.upsample(net.conv(coarse, FINE))
    spatial = net.conv(net.shortcut(up, lateral), FINE, 3)
    detect(net, net.shortcut(net.shortcut(spatial, up), lateral), recipe)
    return spatial

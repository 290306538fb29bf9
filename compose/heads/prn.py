"""Partial residual network heads (Wang et al., 2019), and the heads that its authors compare it with on PeleeNet.

PRN is the authors' yolov3-tiny-prn; the third scale of PRN-3l repeats its form. The other heads are derived from the
authors' operation counts.
"""

from __future__ import annotations

from compose.heads.yolo import COCO, TINY, Recipe, detect
from compose.net import Features, Map, Net

COARSE = 256
FINE = 128


def prn(net: Net, features: Features) -> None:
    """PRN: two scales, /32 and /16, joined by sums over their common channels."""
    fine, coarse = features.take("prn", (16, 32), at_least=FINE)
    _finer(net, _coarsest(net, coarse, TINY), fine, TINY)


def prn_three_scales(net: Net, features: Features) -> None:
    """The paper's PRN-3l: three scales, /32, /16 and /8."""
    finest, fine, coarse = features.take("prn3l", (8, 16, 32), at_least=FINE)
    x = _finer(net, _coarsest(net, coarse, COCO), fine, COCO)
    _finer(net, x, finest, COCO)


def concatenated(net: Net, features: Features, *, dense: bool = True) -> None:
    """PRN with concatenations at /16 instead of sums, as in YOLOv3-tiny; without `dense`, only the first one (FPN)."""
    fine, coarse = features.take("yolov3-tiny-pelee" if dense else "fpn", (16, 32))
    spatial = _coarsest(net, coarse, TINY)
    net.part("head at /16: concatenated with the coarser scale and the backbone")
    merged = net.route(net.upsample(net.conv(spatial, FINE)), fine)
    x = net.conv(merged, FINE, 3)
    detect(net, net.route(x, merged) if dense else x, TINY)


def path_aggregation(net: Net, features: Features) -> None:
    """The FPN form with a path back from /16 to /32 (PAN)."""
    fine, coarse = features.take("pan", (16, 32))
    net.part("path up from /32 to /16")
    narrow = net.conv(coarse, COARSE)
    merged = net.route(net.upsample(net.conv(narrow, FINE)), fine)
    net.part("head at /16")
    x = net.conv(merged, FINE, 3)
    detect(net, x, TINY)
    net.part("head at /32, with the path down")
    detect(net, net.conv(net.route(net.conv(x, FINE, 3, stride=2), narrow), COARSE, 3), TINY)


def _coarsest(net: Net, x: Map, recipe: Recipe) -> Map:
    net.part("head at /32: partial residual")
    narrow = net.conv(x, COARSE)
    spatial = net.conv(narrow, COARSE, 3)
    detect(net, net.shortcut(spatial, narrow), recipe)
    return spatial


def _finer(net: Net, coarse: Map, lateral: Map, recipe: Recipe) -> Map:
    """The next finer scale. As published, it passes on the 3x3 before its sums, and the second sum adds the upsampled map."""
    net.part(f"head at /{lateral.stride}: partial residual from the coarser scale and the backbone")
    up = net.upsample(net.conv(coarse, FINE))
    spatial = net.conv(net.shortcut(up, lateral), FINE, 3)
    detect(net, net.shortcut(net.shortcut(spatial, up), lateral), recipe)
    return spatial

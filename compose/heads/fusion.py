"""The feature pyramids that CSPNet compares in Table 2: exact fusion (EFM), global fusion (GFM), context enhancement (CEM).

The authors published no layer tables. EFM is read off Figure 7, which plots the cost of every layer; GFM and CEM follow
the descriptions in the paper, with widths fitted to the printed totals.
"""

from __future__ import annotations

from compose.blocks import spatial_pyramid
from compose.heads.yolo import COCO, Recipe, detect
from compose.net import Features, Map, Net

CEM_WIDTH = 128


def efm(net: Net, features: Features, recipe: Recipe = COCO, *, attention: bool = True, pyramid: bool = False) -> None:
    """Each scale s reads scales s - 1, s and s + 1, compressed by Maxout before concatenation.

    A top-down column builds P5, P4 (from C4, C3 and P5) and P3 (from C3, C2 and P4); a bottom-up column of strided
    convolutions makes the predictions. `attention` applies SAM to the three assembled maps. `pyramid` replaces the 1x1
    between P5 and P4 by SPP between two Maxouts, which matches the printed total of EFM (SPP).
    """
    c2, c3, c4, c5 = features.take("efm", (4, 8, 16, 32))
    net.part("P5 from C5")
    p5 = net.conv(net.conv(c5, 256), 256, 3)
    net.part("P4 from C4, P5 and C3")
    top = net.maxout(spatial_pyramid(net, net.maxout(p5, 128)), 128) if pyramid else net.conv(p5, 128)
    top = net.upsample(top)
    x = net.conv(net.conv(net.route(top, net.maxout(c4, 128)), 128), 128, 3)
    x = net.conv(x, 64)
    finer = net.conv(net.maxout(c3, 64), 64, 3, stride=2)
    p4 = net.conv(net.conv(net.route(x, finer), 64), 64, 3)
    net.part("P3 from C3, P4 and C2")
    top = net.upsample(net.conv(p4, 32))
    x = net.conv(net.conv(net.route(top, net.maxout(c3, 32)), 64), 64, 3)
    x = net.conv(x, 32)
    finer = net.conv(net.maxout(c2, 32), 32, 3, stride=2)
    net.part("head at /8: P3 and P4")
    x = _predict(net, net.route(x, finer, net.upsample(p4)), 64, recipe, attention)
    net.part("head at /16: the head at /8, P4 and P5")
    down = net.conv(x, 128, 3, stride=2)
    top = net.upsample(net.maxout(p5, 64))
    x = _predict(net, net.route(down, p4, top), 128, recipe, attention)
    net.part("head at /32: the head at /16 and P5")
    x = net.shortcut(net.conv(x, 256, 3, stride=2), p5, "linear")
    _predict(net, x, 128, recipe, attention)


def gfm(net: Net, features: Features) -> None:
    """All scales, compressed by Maxout to 32 channels each, in one map at /16; predictions are bottom-up as in EFM."""
    c2, c3, c4, c5 = features.take("gfm", (4, 8, 16, 32))
    net.part("P5 from C5")
    p5 = net.conv(net.conv(c5, 256), 256, 3)
    net.part("global fusion of C2, C3, C4, P5 and a pooled copy of P5 at /16")
    own = net.maxout(p5, 16)
    top = net.upsample(net.route(own, net.maxpool(own, 5, stride=1)))
    finest = net.maxpool(net.maxpool(net.maxout(c2, 32)))
    finer = net.maxpool(net.maxout(c3, 32))
    fused = net.conv(net.conv(net.route(top, finest, finer, net.maxout(c4, 32)), 128, 3), 128, 3)
    net.part("head at /8")
    x = _predict(net, net.upsample(fused), 64, COCO)
    net.part("head at /16: the head at /8 and the fused map")
    x = _predict(net, net.route(net.conv(x, 128, 3, stride=2), fused), 128, COCO)
    net.part("head at /32: the head at /16 and P5")
    _predict(net, net.shortcut(net.conv(x, 256, 3, stride=2), p5, "linear"), 128, COCO)


def cem(net: Net, features: Features, *, attention: bool = False) -> None:
    """Context enhancement after ThunderNet (arXiv 1903.11752): all scales are summed at /16, and each reads the sum.

    The global-pooling branch is left out: it would tie the cfg to one input size.
    """
    finer, fine, coarse = features.take("cem", (8, 16, 32))
    net.part("context: sum of all scales at /16")
    context = net.upsample(net.conv(coarse, CEM_WIDTH))
    context = net.shortcut(net.conv(fine, CEM_WIDTH), context, "linear")
    context = net.shortcut(net.conv(finer, CEM_WIDTH, stride=2), context, "linear")
    for stride in (32, 16, 8):
        net.part(f"head at /{stride}")
        x = net.conv(context, CEM_WIDTH, 3)
        x = net.maxpool(x) if stride == 32 else net.upsample(x) if stride == 8 else x
        detect(net, spatial_attention(net, x) if attention else x, COCO)


def spatial_attention(net: Net, x: Map) -> Map:
    """SAM: `x` times the logistic of a 1x1 convolution of `x`, elementwise."""
    return net.gate(x, net.conv(x, x.channels, activation="logistic"))


def _predict(net: Net, x: Map, width: int, recipe: Recipe, attention: bool = False) -> Map:
    """1x1 and 3x3 convolution of `width`, followed by the prediction."""
    if attention:
        x = spatial_attention(net, x)
    x = net.conv(net.conv(x, width), width, 3)
    detect(net, x, recipe)
    return x

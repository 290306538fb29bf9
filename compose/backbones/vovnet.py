"""VoVNet (Lee et al., 2019, arXiv 1904.09730): one-shot aggregation (OSA), in both forms that its authors published.

The Caffe form follows Table 1 of the paper and the authors' Caffe code: the stem and stages 2 to 4 end with pooling. The
PyTorch form follows their PyTorch code and fits their weights: the stem's third convolution has stride 2, stages 3 to 5
begin with pooling, and every module except the first of a stage adds its input to its output. Their code normalises images by
ImageNet's mean and standard deviation; here, the first layer does.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from compose.net import Features, Map, Net

LAYERS = 5
SLIM = ((64, 128), (80, 256), (96, 384), (112, 512))
FULL = ((128, 256), (160, 512), (192, 768), (224, 1024))
"""Per stage: channels of the 3x3 convolutions and of the module's output."""
MODULES = {
    "27-slim": (1, 1, 1, 1),
    "39": (1, 1, 2, 2),
    "57": (1, 1, 4, 3),
    "75": (1, 2, 6, 3),
    "93": (1, 3, 8, 3),
}
"""Number of modules per stage."""


def vovnet(net: Net, size: str, form: Literal["pytorch", "caffe"] = "pytorch", *, bottleneck: bool = False) -> Features:
    """VoVNet of a size in MODULES; `bottleneck` puts a 1x1 to half the channels before every 3x3 of a module (Table 3)."""
    caffe = form == "caffe"
    # Padding 1 reproduces the windows of ceil-mode pooling; Darknet's default would shift them by one pixel.
    pool = partial(net.maxpool, size=3, stride=2, padding=1)
    with net.using("relu"):
        net.part("stem, on a normalised image")
        x = net.conv(net.conv(net.normalized(net.input), 64, 3, stride=2), 64, 3)
        x = net.conv(x, 128, 3, stride=1 if caffe else 2)
        maps = {}
        table = zip(SLIM if size == "27-slim" else FULL, MODULES[size], strict=True)
        for stage, ((width, out), count) in enumerate(table, 2):
            if caffe or stage > 2:
                x = pool(x)
            for module in range(count):
                net.part(f"stage {stage}, OSA module {module + 1} of {count}")
                aggregated = one_shot_aggregation(net, x, width, out, bottleneck=bottleneck)
                x = net.shortcut(aggregated, x, "linear") if module and not caffe else aggregated
            maps[x.stride] = x
    return Features(f"vovnet{size}", maps)


def densenet40_osa(net: Net, layers: int = LAYERS, width: int = 43) -> Features:
    """DenseNet-40 with an OSA module of `layers` x `width` instead of each dense block (section 3.2).

    The paper prints no output widths. Modules with as many output channels as their layers have in total match its MAC.
    """
    net.part("stem")
    x = net.conv(net.input, 16, 3)
    maps = {}
    for stage in range(3):
        if stage:
            x = net.maxpool(net.conv(x, x.channels))
        net.part(f"OSA module {stage + 1}")
        x = one_shot_aggregation(net, x, width, layers * width, layers)
        maps[x.stride] = x
    return Features("densenet40-osa", maps)


def one_shot_aggregation(
    net: Net, x: Map, width: int, out: int, layers: int = LAYERS, *, bottleneck: bool = False
) -> Map:
    """A chain of 3x3 convolutions; its input and all outputs are concatenated once and mixed by a 1x1."""
    outputs = [x]
    for _ in range(layers):
        source = outputs[-1]
        outputs.append(net.conv(net.conv(source, source.channels // 2) if bottleneck else source, width, 3))
    return net.conv(net.route(*outputs), out)

"""VoVNet (Lee et al., 2019, arXiv 1904.09730): one-shot aggregation. The layer tables are the authors' public ones."""

from __future__ import annotations

from compose.features import Features
from compose.net import Map, Net

LAYERS = 5
SLIM = ((64, 128), (80, 256), (96, 384), (112, 512))
FULL = ((128, 256), (160, 512), (192, 768), (224, 1024))
"""Per stage: width of the 3x3 convolutions, width of the aggregation."""


def vovnet27_slim(net: Net) -> Features:
    return _build("vovnet27-slim", net, SLIM, (1, 1, 1, 1))


def vovnet39(net: Net) -> Features:
    return _build("vovnet39", net, FULL, (1, 1, 2, 2))


def vovnet57(net: Net) -> Features:
    return _build("vovnet57", net, FULL, (1, 1, 4, 3))


def densenet40_osa(net: Net) -> Features:
    """DenseNet-40 whose dense blocks are replaced by aggregation modules of five 43-wide layers (section 3.2).

    The paper gives those two numbers; that a module puts out 5 x 43 channels is our reading, which meets its MAC.
    """
    net.part("stem")
    x = net.conv(net.input, 16, 3)
    maps = {}
    for stage in range(3):
        if stage:
            x = net.maxpool(net.conv(x, x.channels))
        net.part(f"aggregation module {stage + 1}")
        x = one_shot_aggregation(net, x, 43, LAYERS * 43)
        maps[x.stride] = x
    return Features("densenet40-osa", maps)


def one_shot_aggregation(net: Net, x: Map, width: int, out: int, layers: int = LAYERS) -> Map:
    """A chain of 3x3 convolutions; the input and every output are concatenated once and mixed by a 1x1."""
    outputs = [x]
    for _ in range(layers):
        outputs.append(net.conv(outputs[-1], width, 3))
    return net.conv(net.route(*outputs), out)


def _build(name: str, net: Net, table: tuple[tuple[int, int], ...], modules: tuple[int, ...]) -> Features:
    with net.using("relu"):
        net.part("stem")
        x = net.conv(net.input, 64, 3, stride=2)
        x = net.conv(net.conv(x, 64, 3), 128, 3, stride=2)
        maps = {}
        for stage, ((width, out), count) in enumerate(zip(table, modules, strict=True)):
            if stage:
                # Windows on the pixels of a ceil-mode pooling; Darknet's default padding would shift them by one.
                x = net.maxpool(x, 3, stride=2, padding=1)
            for module in range(count):
                net.part(f"stage {stage + 2}, aggregation module {module + 1} of {count}")
                aggregated = one_shot_aggregation(net, x, width, out)
                x = net.shortcut(aggregated, x, "linear") if module else aggregated
            maps[x.stride] = x
    return Features(name, maps)

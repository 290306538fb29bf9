"""A network that needs no training because its boxes are known."""

from __future__ import annotations

from pathlib import Path

from models.load import load
from models.weights import save_weights

CFG = """[net]
width=64
height=64
channels={channels}
[convolutional]
filters=4
size=8
stride=8
activation=leaky
[convolutional]
filters=7
size=1
activation=linear
[yolo]
mask=0
num=1
anchors=16,16
classes=2
"""


def make_small_model(folder: Path, channels: int = 3) -> tuple[Path, Path, Path]:
    """Write cfg, weights and names of a network that finds class 1 of 2 in each of its 8 x 8 cells.

    Boxes are 16 x 16 pixels of its input with a score of 0.987; neighbours overlap by less than 0.45. Pixels have no effect.
    """
    cfg, weights, names = (folder / f"small.{suffix}" for suffix in ("cfg", "weights", "names"))
    cfg.write_text(CFG.format(channels=channels))
    network = load(cfg)
    for _, item in network.stored():
        item.tensor.data.zero_()
    network.layers[1].biases.data[:] = network.layers[1].biases.new_tensor([0, 0, 0, 0, 5, -5, 5])
    save_weights(network, weights)
    names.write_text("cat\ndog\n")
    return cfg, weights, names

"""Batch-norm statistics from training images, for evaluation early in training."""

from __future__ import annotations

from pathlib import Path

import torch

from data.image import read_image
from models.batchnorm import BatchNorm
from models.network import Network
from models.plan import make_plan
from tests.small_set import YOLO, two_boxes, write_set
from training.validation import calibrated
from utils.cfg import parse

NET = "[net]\nwidth=48\nheight=40\nchannels=3\n"
LAYERS = """[convolutional]
batch_normalize={kind}
filters=6
size=3
stride=2
pad=1
activation=leaky
[dropout]
probability=.3
[convolutional]
filters=14
size=1
stride=4
activation=linear
"""


def calibrate(folder: Path, network: Network, passes: int) -> Network:
    write_set(folder, ("a", "b"), lambda number: two_boxes(number, 2))
    images, cpu = sorted(folder.glob("*.png")), torch.device("cpu")
    return calibrated(network, passes, images, batch=2, workers=1, device=cpu)


def test_statistics_are_means_over_batches_of_a_copy(tmp_path: Path) -> None:
    for kind in (1, 2):
        network = Network(make_plan(parse(NET + LAYERS.format(kind=kind) + YOLO))).train()
        before, random = {name: each.clone() for name, each in network.state_dict().items()}, torch.get_rng_state()
        settled = calibrate(tmp_path, network, 10)
        assert torch.equal(random, torch.get_rng_state()) and not any(each.training for each in settled.modules())
        assert all(torch.equal(before[name], each) for name, each in network.state_dict().items())
        pixels = [
            torch.from_numpy(read_image(path, 3)).permute(2, 0, 1) / 255 for path in sorted(tmp_path.glob("*.png"))
        ]
        layer = network.layers[0]
        assert isinstance(layer.weights, torch.Tensor)
        outputs = torch.nn.functional.conv2d(torch.stack(pixels), layer.weights, stride=2, padding=1).detach()
        mean = outputs.mean((0, 2, 3))
        variance = torch.stack([part.var((0, 2, 3)) for part in outputs.chunk(3)]).mean(0)
        (norm,) = [each for each in settled.modules() if isinstance(each, BatchNorm)]
        torch.testing.assert_close(norm.rolling_mean, mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.rolling_variance, variance, rtol=1e-4 if kind == 1 else 5e-2, atol=1e-5)


def test_settled_and_frozen_statistics_are_left_alone(tmp_path: Path) -> None:
    network = Network(make_plan(parse(NET + LAYERS.format(kind=1) + YOLO))).train()
    assert calibrate(tmp_path, network, 500) is network
    assert calibrate(tmp_path, network.eval(), 10) is network

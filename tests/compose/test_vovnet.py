"""Both VoVNet forms compared with a plain torch model, whose state dict is read like the authors' .pth files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compose.backbones.vovnet import FULL, MODULES, SLIM
from models.formats.files import LoadOptions, load_model
from models.layers.normalization import BatchnormLayer
from models.load import load
from models.training import Training
from tests.paths import REPOSITORY

SIDE = 64
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation that the authors' code normalises images with, as torchvision's examples do."""


def _conv(channels: int, out: int, size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, size, stride, size // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
    )


class _Module(nn.Module):
    """One-shot aggregation of five 3x3 convolutions."""

    def __init__(self, channels: int, width: int, out: int, *, add: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_conv(width if i else channels, width, 3) for i in range(5))
        self.concat = _conv(channels + 5 * width, out, 1)
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        mixed: Tensor = self.concat(torch.cat(outputs, 1))
        return mixed + x if self.add else mixed


class _VoVNet(nn.Module):
    def __init__(self, size: str, *, caffe: bool) -> None:
        super().__init__()
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        layers: list[nn.Module] = [_conv(3, 64, 3, 2), _conv(64, 64, 3), _conv(64, 128, 3, 1 if caffe else 2)]
        channels = 128
        for stage, (width, out) in enumerate(SLIM if size == "27-slim" else FULL):
            if caffe or stage:
                layers.append(pool)
            for module in range(MODULES[size][stage]):
                layers.append(_Module(channels, width, out, add=bool(module) and not caffe))
                channels = out
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3))).softmax(1)


@pytest.mark.parametrize("name", ["27-slim", "39", "57", "75", "93", "27-slim-caffe", "39-caffe"])
def test_state_dict_of_a_plain_model_gives_its_outputs(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = _VoVNet(name.removesuffix("-caffe"), caffe=name.endswith("caffe")).eval()
    for each in plain.modules():
        if isinstance(each, nn.BatchNorm2d):
            nn.init.uniform_(each.weight, 1, 2)
            nn.init.normal_(each.bias, std=0.1)
            nn.init.normal_(each.running_mean, std=0.1)  # type: ignore[arg-type]
            nn.init.uniform_(each.running_var, 0.3, 0.6)  # type: ignore[arg-type]
    torch.save({"state_dict": plain.state_dict()}, tmp_path / "authors.pth")
    cfg = REPOSITORY / "cfg" / f"vovnet{name}.cfg"
    ours = load_model(tmp_path / "authors.pth", LoadOptions(cfg=cfg, width=SIDE, height=SIDE)).network
    image = torch.rand(1, 3, SIDE, SIDE)
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
    with torch.inference_mode():
        expected, (found,) = plain((image - mean) / deviation), ours(image)
    assert expected.std() > 1e-4, "outputs that depend on the layers"
    torch.testing.assert_close(found.flatten(), expected.flatten(), rtol=1e-3, atol=1e-6)


def test_training_learns_only_the_statistics_of_the_images() -> None:
    network = load(REPOSITORY / "cfg" / "vovnet27-slim.cfg", width=SIDE, height=SIDE)
    training, images = Training(network), torch.rand(4, 3, SIDE, SIDE) * torch.tensor([0.2, 0.5, 1.0]).view(3, 1, 1)
    training.begin(1)
    for each in training.losses(images, torch.eye(1000)[:4], seen=4):
        each.value.backward()
    layer = network.layers[0]
    assert isinstance(layer, BatchnormLayer)
    assert all(parameter.grad is None for parameter in layer.parameters())
    assert all(parameter.grad is not None for parameter in network.layers[1].parameters())
    torch.testing.assert_close(layer.norm.rolling_mean, 0.01 * images.mean((0, 2, 3)))
    torch.testing.assert_close(layer.norm.rolling_variance, 0.01 * images.var((0, 2, 3)))

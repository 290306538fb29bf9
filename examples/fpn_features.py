"""Put a plain feature pyramid on the backbone of a cfg and train it for a few steps.

python examples/fpn_features.py --cfg cfg/csppeleenet.cfg --weights csppeleenet.weights
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, mse_loss

from models import features
from models.features import Features


class Fpn(nn.Module):
    """The pyramid of the FPN paper: a 1x1 to a common width, plus the upsampled coarser level, followed by a 3x3."""

    def __init__(self, backbone: Features, width: int = 128) -> None:
        super().__init__()
        self.backbone, self.strides = backbone, backbone.strides
        self.names = sorted(backbone.strides, key=lambda name: -backbone.strides[name])
        self.lateral = nn.ModuleDict({name: nn.Conv2d(backbone.channels[name], width, 1) for name in self.names})
        self.smooth = nn.ModuleDict({name: nn.Conv2d(width, width, 3, padding=1) for name in self.names})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found, pyramid = self.backbone(images), {}
        above = None
        for name in self.names:
            level = self.lateral[name](found[name])
            if above is not None:
                level = level + interpolate(above, size=level.shape[2:], mode="nearest")
            pyramid[name], above = self.smooth[name](level), level
        return pyramid


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--cfg", default="cfg/csppeleenet.cfg")
parser.add_argument("--weights", help="weights of the classifier; default: random")
parser.add_argument("--levels", nargs="+", default=("c3", "c4", "c5"))
parser.add_argument("--img-size", type=int, default=224)
options = parser.parse_args()

torch.manual_seed(0)
pyramid = Fpn(features(options.cfg, options.weights, levels=options.levels)).train()
images = torch.rand(2, 3, options.img_size, options.img_size)
for name, level in pyramid(images).items():
    print(f"{name}: stride {pyramid.strides[name]}, {tuple(level.shape)}")
optimizer = torch.optim.SGD(pyramid.parameters(), lr=0.01)
for step in range(3):  # replace by your head and loss; here every level learns the mean brightness of the image
    loss = torch.stack(
        [mse_loss(level.mean((1, 2, 3)), images.mean((1, 2, 3))) for level in pyramid(images).values()]
    ).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step}: loss {loss.item():.4f}")

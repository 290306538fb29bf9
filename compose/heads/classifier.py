"""Classifier: global average, 1x1 convolution to the classes, softmax."""

from __future__ import annotations

from compose.features import Features
from compose.net import Net

IMAGENET_CLASSES = 1000


def classifier(net: Net, features: Features, *, classes: int = IMAGENET_CLASSES, dropout: float = 0.0) -> None:
    """On the coarsest map of the backbone."""
    net.part("classifier")
    x = net.avgpool(features.last)
    if dropout:
        x = net.dropout(x, dropout)
    net.softmax(net.conv(x, classes, activation="linear", normalize=False))

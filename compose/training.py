"""The `[net]` sections: input and training settings as the papers and the authors' public cfgs state them."""

from __future__ import annotations

from collections.abc import Callable

from compose.net import Value

Settings = dict[str, Value]


def imagenet(side: int, *, steps: int = 1_600_000) -> Settings:
    """CSPNet section 4.1: batch 128, poly policy from 0.1; 1.6 M steps for dense networks, 0.8 M for residual ones.

    The paper prints weight decay 0.005; the authors' public cfgs, which are followed here, have 0.0005. Training
    crops grow from 128 to 448 pixels with a 256-pixel input, in proportion with others.
    """
    return {
        "batch": 128,
        "subdivisions": 4,
        "width": side,
        "height": side,
        "channels": 3,
        "min_crop": side // 2,
        "max_crop": side * 7 // 4,
        "momentum": 0.9,
        "decay": 0.0005,
        "burn_in": 1000,
        "learning_rate": 0.1,
        "policy": "poly",
        "power": 4,
        "max_batches": steps,
        **_imagenet_augmentation(),
    }


def residual_imagenet(side: int) -> Settings:
    """The shorter schedule of ResNet-like classifiers."""
    return imagenet(side, steps=800_000)


def efficientnet_imagenet(side: int) -> Settings:
    """The authors' settings for EfficientNet: batch 120, 0.256 falling by 4 % every 10,000 steps."""
    return {
        "batch": 120,
        "subdivisions": 4,
        "width": side,
        "height": side,
        "channels": 3,
        "max_crop": 256,
        "momentum": 0.9,
        "decay": 0.00005,
        "burn_in": 1000,
        "learning_rate": 0.256,
        "policy": "step",
        "step": 10_000,
        "scale": 0.96,
        "max_batches": 1_600_000,
        **_imagenet_augmentation(),
    }


def cifar(side: int) -> Settings:
    """DenseNet's settings for CIFAR: 300 passes of batch 64, rate 0.1, a tenth at half and at three quarters."""
    steps = 300 * 50_000 // 64
    return {
        "batch": 64,
        "subdivisions": 1,
        "width": side,
        "height": side,
        "channels": 3,
        "min_crop": side,
        "max_crop": side + 8,
        "momentum": 0.9,
        "decay": 0.0001,
        "learning_rate": 0.1,
        "policy": "steps",
        "max_batches": steps,
        "steps": f"{steps // 2},{3 * steps // 4}",
        "scales": ".1,.1",
    }


def coco(side: int) -> Settings:
    """CSPNet section 4.1: 500 k steps of batch 64, steps at 400 k and 450 k; multi-scale is `random=1` of [yolo]."""
    return {
        "batch": 64,
        "subdivisions": 16,
        "width": side,
        "height": side,
        "channels": 3,
        "momentum": 0.9,
        "decay": 0.0005,
        "angle": 0,
        "saturation": 1.5,
        "exposure": 1.5,
        "hue": ".1",
        "learning_rate": 0.001,
        "burn_in": 1000,
        "max_batches": 500_200,
        "policy": "steps",
        "steps": "400000,450000",
        "scales": ".1,.1",
    }


def coco_optimal(side: int) -> Settings:
    """The later recipe published as "original-optimal": mosaic, higher rate and momentum."""
    return coco(side) | {"subdivisions": 8, "momentum": 0.949, "learning_rate": 0.00261, "mosaic": 1}


def _imagenet_augmentation() -> Settings:
    return {"angle": 7, "hue": ".1", "saturation": ".75", "exposure": ".75", "aspect": ".75"}


Training = Callable[[int], Settings]

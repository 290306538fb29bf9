"""The `[net]` sections: input and training settings from the papers and the authors' public cfgs."""

from __future__ import annotations

from collections.abc import Callable

from compose.net import Value

Settings = dict[str, Value]
Training = Callable[[int], Settings]
"""Maps the input side in pixels to the options of [net]."""

IMAGENET_IMAGES = 1_281_167
AUGMENTATION: Settings = {"angle": 7, "hue": ".1", "saturation": ".75", "exposure": ".75", "aspect": ".75"}


def _input(side: int, batch: int, subdivisions: int) -> Settings:
    return {"batch": batch, "subdivisions": subdivisions, "width": side, "height": side, "channels": 3}


def imagenet(side: int, *, steps: int = 1_600_000, subdivisions: int = 4) -> Settings:
    """CSPNet section 4.1, dense networks: batch 128, 1.6 M steps of the poly policy from 0.1.

    The paper prints a weight decay of 0.005. These settings follow the authors' public cfgs, which have 0.0005, and training
    crops of 128 to 448 pixels at any input size.
    """
    return {
        **_input(side, 128, subdivisions),
        "min_crop": 128,
        "max_crop": 448,
        "momentum": 0.9,
        "decay": 0.0005,
        "burn_in": 1000,
        "learning_rate": 0.1,
        "policy": "poly",
        "power": 4,
        "max_batches": steps,
        **AUGMENTATION,
    }


def published_imagenet(side: int) -> Settings:
    """`imagenet` as in the authors' public cfgs, with half as many steps."""
    return imagenet(side, steps=800_000)


def light_imagenet(side: int) -> Settings:
    """`published_imagenet` without subdivisions: Darknet Reference, ResNet-10 and DenseNet-201."""
    return imagenet(side, steps=800_000, subdivisions=1)


def halved_imagenet(side: int) -> Settings:
    """`published_imagenet` with two subdivisions: MobileNet-v2 and ResNet-101."""
    return imagenet(side, steps=800_000, subdivisions=2)


def efficientnet_imagenet(side: int) -> Settings:
    """EfficientNet: batch 120, learning rate 0.256, reduced by 4 % every 10,000 steps.

    The authors' cfg sets `decay` twice, to 0.0005 and 0.00005; the original reads the first (option_list.c option_find).
    """
    return {
        **_input(side, 120, 4),
        "max_crop": 256,
        "momentum": 0.9,
        "decay": 0.0005,
        "burn_in": 1000,
        "learning_rate": 0.256,
        "policy": "step",
        "step": 10_000,
        "scale": 0.96,
        "max_batches": 1_600_000,
        **AUGMENTATION,
    }


def vovnet_imagenet(side: int) -> Settings:
    """VoVNet's code: 90 epochs, batch 256, learning rate 0.1, divided by 10 every 30 epochs, weight decay 0.0001.

    It uses torchvision's random resized crops; Darknet's closest setting is crops of 128 to 448 pixels.
    """
    thirty = 30 * IMAGENET_IMAGES // 256
    return {
        **_input(side, 256, 8),
        "min_crop": 128,
        "max_crop": 448,
        "momentum": 0.9,
        "decay": 0.0001,
        "learning_rate": 0.1,
        "policy": "steps",
        "max_batches": 3 * thirty,
        "steps": f"{thirty},{2 * thirty}",
        "scales": ".1,.1",
    }


def cifar(side: int) -> Settings:
    """DenseNet on CIFAR: 300 epochs, batch 64, learning rate 0.1, divided by 10 after one half and three quarters."""
    steps = 300 * 50_000 // 64
    return {
        **_input(side, 64, 1),
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


def coco(side: int, *, steps: int = 500_500, subdivisions: int = 16) -> Settings:
    """CSPNet section 4.1 and its authors' cfgs: batch 64; `random=1` of [yolo] makes it multi-scale."""
    return {
        **_input(side, 64, subdivisions),
        "momentum": 0.9,
        "decay": 0.0005,
        "angle": 0,
        "saturation": 1.5,
        "exposure": 1.5,
        "hue": ".1",
        "learning_rate": 0.001,
        "burn_in": 1000,
        "max_batches": steps,
        "policy": "steps",
        "steps": "400000,450000",
        "scales": ".1,.1",
    }


def coco_original(side: int) -> Settings:
    """`coco` with the length of YOLOv3's training. Its published cfgs have batch 1, for inference; these can train."""
    return coco(side, steps=500_200)


def coco_light(side: int) -> Settings:
    """`coco` for the PRN and tiny detectors, with half as many subdivisions."""
    return coco(side, steps=500_200, subdivisions=8)


def coco_optimal(side: int) -> Settings:
    """The later recipe, published as "original-optimal": mosaic, higher learning rate and momentum."""
    return coco(side, subdivisions=8) | {"momentum": 0.949, "learning_rate": 0.00261, "mosaic": 1}

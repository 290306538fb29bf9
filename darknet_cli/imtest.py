"""`imtest` and `test`: the colour changes of an image (image.c test_resize)."""

from __future__ import annotations

import numpy as np

from darknet_cli.detect import report_bad_image, save_jpeg
from darknet_cli.grammar import Words
from darknet_cli.network import note, say
from data.augment.classification import distort_exact
from data.augment.colour import Distortion
from data.image import read_image
from utils.errors import InputError, RunError

_GRAY = (0.587, 0.299, 0.114)  # for R, G and B: the original has the first two the wrong way round
_CHANGES = ((0.1, 1.5, 1.5), (-0.1, 0.66666, 0.66666), (0.1, 1.5, 0.66666), (0.1, 0.66666, 1.5))


def imtest(words: Words) -> int:
    """`imtest IMAGE`: print the L2 norm, and save the image, its gray version and four others as the original does."""
    path = words.at(1, "the image")
    try:
        image = read_image(path)
    except InputError as error:
        report_bad_image(path, error)
        raise RunError(f"{path}: could not be read; bad.list names it") from None
    say(f"L2 Norm: {np.sqrt(np.sum((image / 255.0) ** 2)):f}\n")
    images = {"Original": image, "Gray": (image @ np.array(_GRAY)).astype(np.uint8)}
    for number, (hue, saturation, exposure) in enumerate(_CHANGES, start=1):
        distortion = Distortion(hue=hue, saturation=saturation, exposure=exposure)
        images[f"C{number}"] = distort_exact(image, distortion)
    for name, each in images.items():
        note(f"saving {name}.jpg")
        save_jpeg(f"{name}.jpg", each)
    return 0

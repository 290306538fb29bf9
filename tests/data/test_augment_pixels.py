"""Pixels of the augmentation: windows, colours, blur, previews."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from data.augment.colour import Distortion, apply_blur, distort, limit_blur
from data.augment.geometry import CropWindow, crop_and_resize

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (60, 80, 3), np.uint8)


def _whole_window(image: np.ndarray, window: CropWindow) -> np.ndarray:
    """The crop of image_data_augmentation: pixels inside the image, the mean elsewhere."""
    mean = np.rint(image.reshape(-1, image.shape[2]).mean(axis=0)).astype(np.uint8)
    y = np.arange(window.height) + window.top
    x = np.arange(window.width) + window.left
    inside = ((y >= 0) & (y < image.shape[0]))[:, None] & ((x >= 0) & (x < image.shape[1]))[None]
    pixels = image[np.clip(y, 0, image.shape[0] - 1)[:, None], np.clip(x, 0, image.shape[1] - 1)[None]]
    return np.where(inside[..., None], pixels, mean)


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("left", "top", "width", "height"),
    [(0, 0, 80, 60), (10, 5, 50, 40), (-10, -20, 100, 90), (30, -5, 70, 30), (-40, 10, 60, 100), (90, 0, 20, 20)],
)
def test_cut(left: int, top: int, width: int, height: int, flip: bool, channels: int) -> None:
    window = CropWindow(left=left, top=top, width=width, height=height, flip=flip)
    image = np.ascontiguousarray(IMAGE[..., :channels])
    same_size = crop_and_resize(image, window, (width, height))
    expected = _whole_window(image, window)
    np.testing.assert_array_equal(same_size, expected[:, ::-1] if flip else expected)
    assert crop_and_resize(image, window, (32, 48)).shape == (48, 32, channels)


@pytest.mark.parametrize(
    ("rgb", "distortion", "expected"),
    [
        ((200, 40, 40), Distortion(hue=60 / 179, saturation=1, exposure=1), (40, 200, 40)),
        ((40, 200, 40), Distortion(hue=-90 / 179, saturation=1, exposure=1), (200, 40, 40)),  # stops at red
        ((40, 40, 200), Distortion(hue=60 / 179, saturation=1, exposure=1), (200, 40, 40)),  # wraps around
        ((100, 50, 50), Distortion(hue=0, saturation=1, exposure=1.5), (150, 75, 75)),
        ((100, 50, 50), Distortion(hue=0, saturation=1, exposure=9), (255, 127, 127)),
        ((100, 50, 50), Distortion(hue=0, saturation=0.5, exposure=1), (100, 75, 75)),
        ((90, 90, 90), Distortion(hue=0.3, saturation=2, exposure=0.5), (45, 45, 45)),
    ],
)
def test_distort_in_bytes(rgb: tuple, distortion: Distortion, expected: tuple) -> None:
    out = distort(np.full((2, 3, 3), rgb, np.uint8), distortion)
    np.testing.assert_allclose(out[0, 0], expected, atol=2)


def test_distort_of_grey_and_of_nothing() -> None:
    grey = IMAGE[..., :1]
    out = distort(np.ascontiguousarray(grey), Distortion(hue=0.3, saturation=2, exposure=0.5))
    np.testing.assert_array_equal(out, np.rint(grey / 2))
    assert distort(IMAGE, Distortion(hue=0.0, saturation=1.0, exposure=1.0)) is IMAGE


def test_blur_of_the_background_keeps_boxes_sharp() -> None:
    truth = np.array(
        [[0.25, 0.5, 0.25, 0.5, 0], [0.9, 0.1, 0.4, 0.4, 1]], np.float32
    )  # the second extends beyond the corner
    out = apply_blur(IMAGE, 1, truth)
    soft = cv2.GaussianBlur(IMAGE, (17, 17), 0)
    expected = soft.copy()
    expected[15:45, 10:30] = IMAGE[15:45, 10:30]
    expected[0:18, 56:80] = IMAGE[0:18, 56:80]
    differs = (out != expected).any(axis=2)
    assert differs.sum() <= 60  # the edge of a box may be off by a pixel
    np.testing.assert_array_equal(apply_blur(IMAGE, 6, truth), cv2.GaussianBlur(IMAGE, (7, 7), 0))
    assert apply_blur(IMAGE, 0, truth) is IMAGE


@pytest.mark.parametrize(
    ("blur", "sides", "expected"),
    [(9, [(0.5, 0.5)], 9), (9, [(0.5, 0.1)], 5), (9, [(0.5, 0.02)], 1), (9, [(0.01, 0.5)], 0), (9, [], 0), (1, [], 1)],
)
def test_small_objects_limit_the_blur(blur: int, sides: list[tuple[float, float]], expected: int) -> None:
    truth = np.array([[0.5, 0.5, w, h, 0] for w, h in sides], np.float32).reshape(-1, 5)
    assert limit_blur(blur, truth, (416, 416)) == expected

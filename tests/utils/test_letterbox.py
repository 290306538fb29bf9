"""Placement of an image in the network's input, compared with correct_yolo_boxes (src/yolo_layer.c) restated in Python."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.paths import shared
from utils.letterbox import Letterbox, centre_crop, network_input, resize_darknet, resize_opencv


@pytest.mark.parametrize(
    ("image_wh", "network_wh", "inner_wh", "offset_wh"),
    [
        ((768, 576), (416, 416), (416, 312), (0, 52)),
        ((576, 768), (416, 416), (312, 416), (52, 0)),
        ((640, 424), (320, 320), (320, 212), (0, 54)),
        ((773, 512), (320, 320), (320, 211), (0, 54)),
        ((500, 500), (608, 320), (320, 320), (144, 0)),
        ((1, 1), (32, 32), (32, 32), (0, 0)),
        ((20000, 1), (416, 416), (416, 1), (0, 207)),
        ((1, 20000), (416, 416), (1, 416), (207, 0)),
    ],
)
def test_letterbox_sizes(
    image_wh: tuple[int, int], network_wh: tuple[int, int], inner_wh: tuple[int, int], offset_wh: tuple[int, int]
) -> None:
    letterbox = Letterbox(image_wh=image_wh, network_wh=network_wh, letter_box=True)
    assert (letterbox.resized_wh, letterbox.offset_xy) == (inner_wh, offset_wh)
    plain = Letterbox(image_wh=image_wh, network_wh=network_wh)
    assert (plain.resized_wh, plain.offset_xy) == (network_wh, (0, 0))


@pytest.mark.parametrize("letter_box", [False, True])
@pytest.mark.parametrize("image_wh", [(773, 512), (512, 773), (500, 500), (1, 1), (2000, 100)])
def test_the_resized_image_covers_the_whole_image(image_wh: tuple[int, int], letter_box: bool) -> None:
    letterbox = Letterbox(image_wh=image_wh, network_wh=(416, 320), letter_box=letter_box)
    (width, height), (resized_w, resized_h) = image_wh, letterbox.resized_wh
    box = torch.tensor([[0.5, 0.5, resized_w / 416, resized_h / 320]], dtype=torch.float64)
    torch.testing.assert_close(letterbox.to_image(box)[0], torch.tensor([0.0, 0, width, height], dtype=torch.float64))


def test_letterbox_undo_is_the_originals() -> None:
    letterbox = Letterbox(image_wh=(773, 512), network_wh=(320, 320), letter_box=True)
    x, y, w, h = 0.4, 0.3, 0.2, 0.1
    new_h = 512 * 320 // 773
    y_rel, h_rel = (y - (320 - new_h) / 2 / 320) / (new_h / 320), h * 320 / new_h
    np.testing.assert_allclose(letterbox.to_image_rel(torch.tensor([[x, y, w, h]]))[0], [x, y_rel, w, h_rel], rtol=1e-6)
    expected = [(x - w / 2) * 773, (y_rel - h_rel / 2) * 512, (x + w / 2) * 773, (y_rel + h_rel / 2) * 512]
    np.testing.assert_allclose(letterbox.to_image(torch.tensor([[x, y, w, h]]))[0], expected, rtol=1e-6)


def test_no_boxes() -> None:
    letterbox = Letterbox(image_wh=(10, 20), network_wh=(32, 32), letter_box=True)
    assert letterbox.to_image(torch.zeros(0, 4)).shape == (0, 4)


def slow_resize(image: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.float32]:
    """resize_image of src/image.c, pixel by pixel."""
    f32 = np.float32
    height, width, channels = image.shape
    w, h = size_wh
    source = image.astype(f32) / f32(255)
    part, out = np.zeros((height, w, channels), f32), np.zeros((h, w, channels), f32)
    if size_wh == (width, height):
        return source.transpose(2, 0, 1)
    w_scale, h_scale = (f32(width - 1) / f32(max(w - 1, 1)), f32(height - 1) / f32(max(h - 1, 1)))
    for c in range(w):
        if c == w - 1 or width == 1:
            part[:, c] = source[:, width - 1]
        else:
            place = f32(c) * w_scale
            low = int(place)
            part[:, c] = (1 - (place - low)) * source[:, low] + (place - low) * source[:, low + 1]
    for r in range(h):
        place = f32(r) * h_scale
        low = int(place)
        out[r] = (1 - (place - low)) * part[low]
        if r < h - 1 and height > 1:
            out[r] += (place - low) * part[low + 1]
    return out.transpose(2, 0, 1)


def noise(width: int, height: int, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(width * height).integers(0, 256, (height, width, channels), np.uint8)


SIZES = [
    ((40, 31), (41, 41)),
    ((33, 243), (32, 234)),  # rounding maps the last row before that of the image: it fades
    ((61, 122), (104, 416)),  # fades too
    ((48, 200), (32, 32)),  # many rows are skipped
    ((1, 9), (32, 32)),
    ((9, 1), (32, 32)),
    ((1, 1), (32, 32)),
    ((33, 20), (1, 7)),
    ((32, 32), (32, 32)),
    ((2000, 3), (32, 32)),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("image_wh", "network_wh"), SIZES)
def test_stretched_as_in_the_original(image_wh: tuple[int, int], network_wh: tuple[int, int], channels: int) -> None:
    image = noise(*image_wh, channels)
    ours = resize_darknet(image, network_wh)
    assert ours.dtype == np.float32 and ours.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(ours, slow_resize(image, network_wh), atol=2e-5)


@pytest.mark.parametrize(
    ("image_wh", "network_wh"),
    [((60, 40), (20, 20)), ((40, 61), (21, 21)), ((20, 20), (20, 20)), ((30, 30), (16, 24)), ((50, 31), (24, 16))],
)
def test_the_middle_as_a_classifier_sees_it(image_wh: tuple[int, int], network_wh: tuple[int, int]) -> None:
    """resize_min and crop_image of src/image.c, pixel by pixel."""
    (width, height), (net_w, net_h) = image_wh, network_wh
    size_wh = (net_w, height * net_w // width) if width < height else (width * net_w // height, net_w)
    resized = slow_resize(noise(*image_wh), size_wh)
    dx, dy = int((size_wh[0] - net_w) / 2), int((size_wh[1] - net_h) / 2)
    expected = np.zeros((3, net_h, net_w), np.float32)
    for y in range(net_h):
        for x in range(net_w):
            column, row = min(max(x + dx, 0), size_wh[0] - 1), min(max(y + dy, 0), size_wh[1] - 1)
            expected[:, y, x] = resized[:, row, column]
    np.testing.assert_allclose(centre_crop(noise(*image_wh), network_wh), expected, atol=2e-5)


def test_the_last_row_fades_where_the_original_loses_it() -> None:
    white = np.full((243, 33, 3), 255, np.uint8)
    out = resize_darknet(white, (32, 234))
    assert out[:, -1].max() < 1e-3
    assert out[:, :-1].min() > 0.999


@pytest.mark.parametrize("kernel", ["darknet", "opencv"])
def test_letterbox_fills_with_gray(kernel: str) -> None:
    fit = Letterbox(image_wh=(60, 30), network_wh=(32, 32), letter_box=True)
    out = network_input(np.full((30, 60, 3), 255, np.uint8), fit, kernel)
    assert out.shape == (3, 32, 32)
    assert (out[:, :8] == 0.5).all() and (out[:, 24:] == 0.5).all()
    np.testing.assert_allclose(out[:, 8:24], 1, atol=1e-6)


def test_opencv_kernel_is_cv2_resize() -> None:
    image = noise(64, 48)
    expected = cv2.resize(image, (32, 32)).transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_array_equal(resize_opencv(image, (32, 32)), expected)
    gray = resize_opencv(noise(64, 48, 1), (32, 32))
    assert gray.shape == (1, 32, 32)


@pytest.mark.parametrize("letter_box", [False, True])
@pytest.mark.parametrize("name", ["dog", "person", "horses", "eagle", "giraffe"])
def test_recorded_inputs(name: str, letter_box: bool) -> None:
    recorded = np.load(shared("reference/real_inputs.npz"))[f"{name}_{'letterbox' if letter_box else 'resize'}"]
    image = cv2.imread(str(shared(f"datasets/pictures/{name}.png")))[..., ::-1]
    fit = Letterbox(image_wh=(image.shape[1], image.shape[0]), network_wh=(320, 320), letter_box=letter_box)
    values = network_input(np.ascontiguousarray(image), fit).ravel()
    samples = (np.arange(len(recorded), dtype=np.int64) * values.size) // len(recorded)
    np.testing.assert_allclose(values[samples], recorded, atol=1e-6)

"""Where an image lies in the network's input, against a re-statement of correct_yolo_boxes (src/yolo_layer.c)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from utils.letterbox import Letterbox


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
    fit = Letterbox(image_wh=image_wh, network_wh=network_wh, letter_box=True)
    assert (fit.resized_wh, fit.offset_xy) == (inner_wh, offset_wh)
    plain = Letterbox(image_wh=image_wh, network_wh=network_wh)
    assert (plain.resized_wh, plain.offset_xy) == (network_wh, (0, 0))


@pytest.mark.parametrize("letter_box", [False, True])
@pytest.mark.parametrize("image_wh", [(773, 512), (512, 773), (500, 500), (1, 1), (20000, 1)])
def test_boxes_there_and_back(image_wh: tuple[int, int], letter_box: bool) -> None:
    fit = Letterbox(image_wh=image_wh, network_wh=(416, 320), letter_box=letter_box)
    boxes = torch.rand(50, 4, dtype=torch.float64)
    torch.testing.assert_close(fit.to_network(fit.to_image(boxes)), boxes)
    torch.testing.assert_close(fit.to_network_rel(fit.to_image_rel(boxes)), boxes)


def test_letterbox_undo_is_the_originals() -> None:
    fit = Letterbox(image_wh=(773, 512), network_wh=(320, 320), letter_box=True)
    x, y, w, h = 0.4, 0.3, 0.2, 0.1
    new_h = 512 * 320 // 773
    y_rel, h_rel = (y - (320 - new_h) / 2 / 320) / (new_h / 320), h * 320 / new_h
    np.testing.assert_allclose(fit.to_image_rel(torch.tensor([[x, y, w, h]]))[0], [x, y_rel, w, h_rel], rtol=1e-6)
    expected = [(x - w / 2) * 773, (y_rel - h_rel / 2) * 512, (x + w / 2) * 773, (y_rel + h_rel / 2) * 512]
    np.testing.assert_allclose(fit.to_image(torch.tensor([[x, y, w, h]]))[0], expected, rtol=1e-6)


def test_no_boxes() -> None:
    fit = Letterbox(image_wh=(10, 20), network_wh=(32, 32), letter_box=True)
    assert fit.to_image(torch.zeros(0, 4)).shape == (0, 4)

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.image import image_size
from utils.errors import InputError

KINDS = ["jpg", "png", "bmp", "ppm", "pgm", "webp", "tiff"]


@pytest.mark.parametrize("size_wh", [(1, 1), (17, 300), (640, 31)])
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_decoder(kind: str, size_wh: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    shape = (size_wh[1], size_wh[0]) if kind == "pgm" else (size_wh[1], size_wh[0], 3)
    assert cv2.imwrite(str(path), np.full(shape, 90, np.uint8))
    assert image_size(path) == size_wh


@pytest.mark.parametrize(("keep", "message"), [(0, "empty"), (3, "damaged"), (200, "damaged|truncated")])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_damaged(kind: str, keep: int, message: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    cv2.imwrite(str(path), noise)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=message if (kind, keep) != ("png", 3) else "no image"):
        image_size(path)


@pytest.mark.parametrize("content", [b"hello", b"P5\n# a\n0 4\n255\n"])
def test_no_image(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError):
        image_size(path)


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        image_size(tmp_path / "a.jpg")

"""Reading a picture file: the right pixels, or one InputError that says what is wrong with which file."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data.image_size import declared_size
from utils.errors import InputError
from utils.resize import gray

MAX_PIXELS = 1 << 28
"""Largest picture that is decoded (0.8 GB of RGB): a few kilobytes of PNG can claim any size."""

_FIRST_BYTES = 16


def read_image(path: str | Path, channels: int = 3, *, upright: bool = False) -> NDArray[np.uint8]:
    """A picture file as uint8 (height, width, channels): RGB for 3 channels, gray for 1.

    Gray, palette and CMYK pictures become RGB, 16-bit ones keep their upper 8 bits, transparency is dropped; so it
    is in the original's decoder. `upright` turns the picture as its EXIF orientation says. Without it pixels are as
    stored, as in the original's decoder and as `image_size` and labels count them.
    Raises InputError for a file that is missing, empty, cut off, no picture, or larger than MAX_PIXELS.
    """
    assert channels in (1, 3), channels
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such picture") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise InputError(f"{path}: picture cannot be read: {getattr(error, 'strerror', None) or error}") from None
    picture = _decode(data, path, upright)
    return gray(picture) if channels == 1 else picture


def _decode(data: bytes, path: str | Path, upright: bool) -> NDArray[np.uint8]:
    size_wh = declared_size(io.BytesIO(data), path)
    if size_wh is not None and size_wh[0] * size_wh[1] > MAX_PIXELS:
        raise InputError(f"{path}: picture is {size_wh[0]}x{size_wh[1]} pixels, expected at most {MAX_PIXELS} in all")
    flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:  # OpenCV's own limit of pixels, and codecs that it was built without
        raise InputError(f"{path}: picture cannot be decoded: {error.err}") from None
    if bgr is None:
        kind = "picture is damaged or cut off" if size_wh else "no picture of a known kind"
        raise InputError(f"{path}: {kind}: {len(data)} bytes that begin with {data[:_FIRST_BYTES]!r}")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)

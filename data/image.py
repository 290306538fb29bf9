"""Reading and writing image files: the right pixels, or one error that names the file and what is wrong with it."""

from __future__ import annotations

import io
import os
import re
import struct
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.errors import InputError
from utils.files import atomic_write
from utils.letterbox import to_gray

Image = NDArray[np.uint8]
"""An image, (height, width, channels), RGB or grey, 0..255."""

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".dib", ".gif", ".jpeg", ".jpg", ".jpe", ".jp2", ".png", ".apng", ".webp", ".avif", ".pbm", ".pgm"}
    | {".ppm", ".pnm", ".sr", ".ras", ".tiff", ".tif"}
)
MAX_PIXELS = 1 << 28
"""Largest image that is decoded (0.8 GB of RGB): a few kilobytes of PNG can claim any size."""

_HEAD = 64
_FIRST_BYTES = 16
# JPEG's start-of-frame markers: C0..CF without C4 (Huffman tables), C8 (reserved) and CC (arithmetic conditioning).
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})
_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s")


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height in pixels as stored (an EXIF rotation is not applied, as in the original's decoder).

    JPEG, PNG, BMP, GIF, PNM and WebP from the header, others by decoding.
    Raises InputError when the file is missing, empty, cut off or no image.
    """
    try:
        with Path(path).open("rb") as stream:
            size_wh = declared_size(stream, path)
    except OSError as error:
        raise InputError(f"{path}: image cannot be read: {error.strerror or error}") from error
    if size_wh is None:
        size_wh = _size_by_decoding(path)
    if min(size_wh) < 1:
        raise InputError(f"{path}: image is damaged: its size is {size_wh[0]}x{size_wh[1]}")
    return size_wh


def declared_size(stream: BinaryIO, path: str | Path) -> tuple[int, int] | None:
    """Width and height as the header tells them; None for a kind of file not known here. `path` is for the message.

    Raises InputError when the stream is empty, damaged or cut off.
    """
    try:
        size_wh = _size(stream)
        if size_wh is not None:
            _check_end(stream)
    except (struct.error, IndexError, ValueError) as error:
        raise InputError(f"{path}: image is damaged: {error}") from None
    return size_wh


def _size(stream: BinaryIO) -> tuple[int, int] | None:
    head = stream.read(_HEAD)
    if not head:
        raise ValueError("the file is empty")
    if head.startswith(b"\xff\xd8"):
        return _jpeg_size(stream)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _pair(struct.unpack(">II", head[16:24]))
    if head.startswith(b"BM"):
        width, height = struct.unpack("<ii", head[18:26])
        return width, abs(height)
    if head.startswith((b"GIF87a", b"GIF89a")):
        return _pair(struct.unpack("<HH", head[6:10]))
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _webp_size(head)
    found = _PNM.match(head)
    return (int(found[1]), int(found[2])) if found else None


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    width, height = values
    return width, height


def _jpeg_size(stream: BinaryIO) -> tuple[int, int]:
    stream.seek(2)
    while True:
        byte = stream.read(1)
        if not byte:
            raise ValueError("no frame in the JPEG file")
        if byte != b"\xff":
            continue
        while byte == b"\xff":
            byte = stream.read(1)
        marker = byte[0]
        if marker in _STANDALONE_MARKERS or marker == 0:
            continue
        (length,) = struct.unpack(">H", stream.read(2))
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack(">xHH", stream.read(5))
            return width, height
        stream.seek(length - 2, os.SEEK_CUR)


def _webp_size(head: bytes) -> tuple[int, int]:
    kind = head[12:16]
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", head[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", head[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _check_end(stream: BinaryIO) -> None:
    """The closing mark of a JPEG or PNG file. Some cameras write padding behind it."""
    stream.seek(0)
    head = stream.read(4)
    end = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, end - 4096))
    tail = stream.read()
    if head.startswith(b"\xff\xd8") and b"\xff\xd9" not in tail:
        raise ValueError("the JPEG file is cut off")
    if head.startswith(b"\x89PNG") and b"IEND" not in tail:
        raise ValueError("the PNG file is cut off")


def _size_by_decoding(path: str | Path) -> tuple[int, int]:
    data = np.fromfile(path, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise InputError(f"{path}: no image of a known kind")
    return int(image.shape[1]), int(image.shape[0])


def read_image(path: str | Path, channels: int = 3, *, upright: bool = False) -> Image:
    """An image file as uint8 (height, width, channels): RGB for 3 channels, gray for 1.

    Gray, palette and CMYK images become RGB, 16-bit ones keep their upper 8 bits, transparency is dropped; so it
    is in the original's decoder. `upright` turns the image as its EXIF orientation says. Without it pixels are as
    stored, as in the original's decoder and as `image_size` and labels count them.
    Raises InputError for a file that is missing, empty, cut off, no image, or larger than MAX_PIXELS.
    """
    assert channels in (1, 3), channels
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise InputError(f"{path}: image cannot be read: {getattr(error, 'strerror', None) or error}") from None
    image = _decode(data, path, upright)
    return to_gray(image) if channels == 1 else image


def _decode(data: bytes, path: str | Path, upright: bool) -> Image:
    size_wh = declared_size(io.BytesIO(data), path)
    if size_wh is not None and size_wh[0] * size_wh[1] > MAX_PIXELS:
        raise InputError(f"{path}: image is {size_wh[0]}x{size_wh[1]} pixels, expected at most {MAX_PIXELS} in all")
    flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:  # OpenCV's own limit of pixels, and codecs that it was built without
        raise InputError(f"{path}: image cannot be decoded: {error.err}") from None
    if bgr is None:
        kind = "image is damaged or cut off" if size_wh else "no image of a known kind"
        raise InputError(f"{path}: {kind}: {len(data)} bytes that begin with {data[:_FIRST_BYTES]!r}")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def save_image(path: str | Path, image: Image) -> None:
    """Write a uint8 RGB image as JPEG, whole or not at all."""
    ok, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert ok, f"JPEG of {image.shape}"
    with atomic_write(path) as stream:
        stream.write(data.tobytes())

"""Reading and writing image files: correct pixels, or one error that names the file and what is wrong with it.

Images are rotated upright by their EXIF orientation, as in the original when it is built with OpenCV. The environment
variable CSPYOLO_EXIF=0 disables that everywhere, including worker processes.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.errors import InputError
from utils.files import atomic_write, read_bytes

Image = NDArray[np.uint8]
"""An image, (height, width, channels), RGB or grey, 0..255."""

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".dib", ".gif", ".jpeg", ".jpg", ".jpe", ".jp2", ".png", ".apng", ".webp", ".avif", ".pbm", ".pgm"}
    | {".ppm", ".pnm", ".sr", ".ras", ".tiff", ".tif"}
)
HEIC_SUFFIXES = frozenset({".heic", ".heif"})  # OpenCV cannot read them
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1")
WRITABLE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
MAX_PIXELS = 1 << 28
"""Largest image that is decoded (0.8 GB of RGB): a few kilobytes of PNG can declare any size."""
_HUGE_PIXELS = 1 << 24
_PIXELS_PER_BYTE = {b"\xff\xd8": 2048, b"GIF8": 4096}
"""Most pixels of a huge JPEG or GIF image for each byte of its file. A block of 8x8 pixels in a JPEG file has at least one bit, of
which this is a quarter; a GIF file has at least 12 bits for 4096 pixels."""

_HEADER_BYTES, _SHOWN_BYTES = 64, 16
# JPEG's start-of-frame markers: C0..CF except C4 (Huffman tables), C8 (reserved) and CC (arithmetic conditioning).
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})
_APP1, _ORIENTATION_TAG, _TRANSPOSED_FROM = 0xE1, 0x0112, 5
_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s")


class ImageHeader(NamedTuple):
    """Contents of an image file's header.

    size_wh: in pixels.
    turned: whether the image is rotated on reading; None if unknown (EXIF outside JPEG), in which case size_wh is the
        stored size.
    """

    size_wh: tuple[int, int]
    turned: bool | None = False


def reads_upright() -> bool:
    """Return whether images are rotated upright: unless CSPYOLO_EXIF is 0."""
    return os.environ.get("CSPYOLO_EXIF") != "0"


def image_size(path: str | Path) -> tuple[int, int]:
    """Return width and height in pixels of the upright image; see `image_header`."""
    return image_header(path).size_wh


def image_header(path: str | Path) -> ImageHeader:
    """Return size and orientation of an image: JPEG, PNG, BMP, GIF, PNM and WebP from the header, others by decoding.

    Raises InputError if the file is missing, empty, truncated or not an image.
    """
    try:
        with Path(path).open("rb") as stream:
            header = declared_header(stream, path)
    except OSError as error:
        raise InputError(f"{path}: image cannot be read: {error.strerror or error}") from error
    if header is None or header.turned is None:
        height, width, _ = read_image(path).shape
        header = ImageHeader((width, height), header is not None and header.size_wh != (width, height))
    width, height = header.size_wh
    if min(width, height) < 1:
        raise InputError(f"{path}: image is damaged: its size is {width}x{height}")
    return header


def declared_header(stream: BinaryIO, path: str | Path) -> ImageHeader | None:
    """Read the header; return None for other formats. `path` is for the message.

    Raises InputError if the stream is empty, damaged or truncated.
    """
    try:
        header = _read_header(stream)
        if header is not None:
            _check_end(stream)
    except (struct.error, IndexError, ValueError) as error:
        raise InputError(f"{path}: image is damaged: {error}") from None
    return header


def _read_header(stream: BinaryIO) -> ImageHeader | None:
    head = stream.read(_HEADER_BYTES)
    if not head:
        raise ValueError("the file is empty")
    if head.startswith(b"\xff\xd8"):
        return _jpeg_header(stream)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height = struct.unpack(">II", head[16:24])
        # OpenCV looks for eXIf before the pixels only.
        first = next((kind for kind in _png_chunks(stream) if kind in (b"eXIf", b"IDAT")), None)
        return ImageHeader((width, height), None if reads_upright() and first == b"eXIf" else False)
    if head.startswith(b"BM"):
        width, height = struct.unpack("<ii", head[18:26])
        return ImageHeader((width, abs(height)))
    if head.startswith((b"GIF87a", b"GIF89a")):
        width, height = struct.unpack("<HH", head[6:10])
        return ImageHeader((width, height))
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _webp_header(head)
    found = _PNM.match(head)
    return ImageHeader((int(found[1]), int(found[2]))) if found else None


def _jpeg_header(stream: BinaryIO) -> ImageHeader:
    stream.seek(2)
    orientation = 1
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
            size_wh = (height, width) if orientation >= _TRANSPOSED_FROM else (width, height)
            return ImageHeader(size_wh, orientation != 1)
        if marker == _APP1 and orientation == 1 and reads_upright():
            orientation = _exif_orientation(stream.read(length - 2))
        else:
            stream.seek(length - 2, os.SEEK_CUR)


def _exif_orientation(segment: bytes) -> int:
    """Return the orientation, 1 to 8, from the first directory of an EXIF segment; 1 if it has none."""
    tiff = segment[6:]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if not segment.startswith(b"Exif\0\0") or order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, offset)
        for number in range(entries):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, offset + 2 + 12 * number)
            if tag == _ORIENTATION_TAG:
                return value if 1 <= value <= 8 else 1
    except struct.error:  # truncated: decoders ignore it
        pass
    return 1


def _png_chunks(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the type of each chunk of a PNG file up to the first that is longer than the rest of the file."""
    stream.seek(8)
    while len(start := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        yield kind
        stream.seek(length + 4, os.SEEK_CUR)


def _webp_header(head: bytes) -> ImageHeader:
    kind = head[12:16]
    if kind == b"VP8X":
        size_wh = int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
        return ImageHeader(size_wh, None if reads_upright() and head[20] & 0x08 else False)  # 0x08: has EXIF
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", head[21:25])
        return ImageHeader(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
    width, height = struct.unpack("<HH", head[26:30])
    return ImageHeader((width & 0x3FFF, height & 0x3FFF))


def _check_end(stream: BinaryIO) -> None:
    """Raise ValueError if a JPEG or PNG file lacks its end marker. Some cameras write padding after the marker."""
    stream.seek(0)
    head = stream.read(4)
    end = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, end - 4096))
    tail = stream.read()
    if head.startswith(b"\xff\xd8") and b"\xff\xd9" not in tail:
        raise ValueError("the JPEG file is truncated")
    if head.startswith(b"\x89PNG") and b"IEND" not in tail:
        raise ValueError("the PNG file is truncated")


def read_image(path: str | Path, channels: int = 3) -> Image:
    """Read an image file as uint8 (height, width, channels), upright: RGB for 3 channels, grey for 1.

    As in the original's decoder, grey, palette and CMYK images become RGB, 16-bit ones keep their upper 8 bits and
    transparency is dropped.
    Raises InputError for a file that is missing, empty, truncated, not an image, or larger than MAX_PIXELS.
    """
    assert channels in (1, 3), channels
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise InputError(f"{path}: image cannot be read: {getattr(error, 'strerror', None) or error}") from None
    image = _decode(data, path)
    if channels == 1:
        from utils.letterbox import to_gray  # imports PyTorch, which decoding does not need

        return to_gray(image)
    return image


def is_heic(data: bytes) -> bool:
    """Return whether a file that begins with `data` is an image in the format of phones, which OpenCV cannot read."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS


def _decode(data: bytes, path: str | Path) -> Image:
    header = declared_header(io.BytesIO(data), path)
    if header is not None and header.size_wh[0] * header.size_wh[1] > MAX_PIXELS:
        width, height = header.size_wh
        raise InputError(f"{path}: image is {width}x{height} pixels, expected at most {MAX_PIXELS} in all")
    if header is not None and not _pixels_fit(data, header.size_wh):
        width, height = header.size_wh
        raise InputError(f"{path}: image is truncated: {len(data)} bytes cannot hold {width}x{height} pixels")
    # OpenCV allocates any length that a chunk declares.
    if data.startswith(b"\x89PNG") and b"IEND" not in _png_chunks(io.BytesIO(data)):
        raise InputError(f"{path}: image is damaged: a chunk of the PNG file claims more bytes than there are")
    try:
        orientation = 0 if reads_upright() else cv2.IMREAD_IGNORE_ORIENTATION
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | orientation)
    except cv2.error as error:  # OpenCV's own pixel limit, or a codec that it was built without
        raise InputError(f"{path}: image cannot be decoded: {error.err}") from None
    if bgr is None and is_heic(data):
        raise InputError(f"{path}: is a HEIC image, which OpenCV cannot read; convert it to JPEG first")
    if bgr is None:
        what = "image is damaged or truncated" if header else "not an image in a supported format"
        raise InputError(f"{path}: {what}: {len(data)} bytes that begin with {data[:_SHOWN_BYTES]!r}")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _pixels_fit(data: bytes, size_wh: tuple[int, int]) -> bool:
    """Whether a file can hold its pixels. OpenCV fills what is missing, which takes seconds and gigabytes for a huge image."""
    pixels = size_wh[0] * size_wh[1]
    limits = (limit for magic, limit in _PIXELS_PER_BYTE.items() if data.startswith(magic))
    return pixels < _HUGE_PIXELS or all(pixels <= limit * len(data) for limit in limits)


def jpeg(image: Image, quality: int) -> bytes:
    """Encode a uint8 image as JPEG: RGB (height, width, 3) or grey (height, width)."""
    bgr = image[..., ::-1] if image.ndim == 3 else image
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def save_image(path: str | Path, image: Image) -> None:
    """Write a uint8 RGB image atomically, in the format of the path's extension. Raises InputError for an unknown one."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITABLE_SUFFIXES:
        raise InputError(f"{path}: cannot write this format, expected {', '.join(sorted(WRITABLE_SUFFIXES))}")
    data = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]))[1]
    with atomic_write(path, durable=False) as stream:
        stream.write(data.tobytes())

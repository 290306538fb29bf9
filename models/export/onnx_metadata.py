"""The metadata of an ONNX file without the package onnx and without reading its weights.

An ONNX file is a protobuf message: fields, each a number with a wire type and its content. The metadata are field 14 of the
outermost message, pairs of strings with the numbers 1 and 2.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from utils.errors import InputError

_METADATA_PROPS = 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_BYTES = 64 * 2**20


def read_onnx_metadata(path: str | Path) -> dict[str, str]:
    """Pairs of words in an ONNX file. Raises InputError for a file that is none, or that is cut short."""
    try:
        with Path(path).open("rb") as stream:
            pairs = [dict(_fields(content)) for content in _metadata(stream, os.fstat(stream.fileno()).st_size)]
            return {pair[1].decode("utf-8"): pair.get(2, b"").decode("utf-8") for pair in pairs}
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (EOFError, KeyError, ValueError):
        raise InputError(f"{path}: is cut short or no ONNX model") from None


def _metadata(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while stream.tell() < size:
        number, wire = divmod(_varint(stream), 8)
        if wire == _VARINT:
            _varint(stream)
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(wire) or _length(stream, wire)
        if stream.tell() + length > size:
            raise EOFError
        if number == _METADATA_PROPS and length <= _MOST_BYTES:
            yield stream.read(length)
        else:
            stream.seek(length, os.SEEK_CUR)


def _length(stream: BinaryIO, wire: int) -> int:
    if wire != _BYTES:
        raise ValueError
    return _varint(stream)


def _varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            raise EOFError
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError


def _fields(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, content) of a message that has strings only."""
    stream = BytesIO(content)
    while stream.tell() < len(content):
        number, wire = divmod(_varint(stream), 8)
        length = _length(stream, wire)
        if stream.tell() + length > len(content):
            raise EOFError
        yield number, stream.read(length)

"""Networks as .safetensors files: tensors by name, with the description as metadata."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from models.formats.checkpoint import FORMAT, Described, Description, state_of
from models.network import Network
from utils.documents import parse_json
from utils.errors import InputError
from utils.files import atomic_write
from utils.packages import need

_MOST_BYTES = 100_000_000  # size limit of the header, set by the format
_LENGTH = struct.Struct("<Q")
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def check_header(path: str | Path) -> None:
    """Raise InputError unless the tensors of the header cover every byte of the file exactly once."""
    try:
        with Path(path).open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            start = stream.read(_LENGTH.size)
            length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else size
            if length > min(_MOST_BYTES, size - _LENGTH.size):
                raise InputError(f"{path}: is truncated or not a safetensors file")
            text = stream.read(length)
    except FileNotFoundError:
        raise InputError(f"{path}: no such safetensors file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    _check_tensors(_parsed(text, path), size - _LENGTH.size - length, path)


def _parsed(text: bytes, path: str | Path) -> dict[str, Any]:
    header = parse_json(text, str(path), "its header")
    if not isinstance(header, dict):
        raise InputError(f"{path}: its header is damaged or not a safetensors header")
    header.pop("__metadata__", None)
    return header


def _check_tensors(header: dict[str, Any], room: int, path: str | Path) -> None:
    spans = sorted((_span(name, entry, path), name) for name, entry in header.items())
    end = 0
    for (start, stop), name in spans:
        if start != end:
            kind = "shares bytes with another tensor" if start < end else "leaves bytes unused before it"
            raise InputError(f"{path}: its header is wrong: {name} {kind}")
        end = stop
    if end != room:
        raise InputError(f"{path}: its header is wrong: tensors of {end:,} bytes, the file has {room:,} for them")


def _span(name: str, entry: Any, path: str | Path) -> tuple[int, int]:
    """Start and end of a tensor in bytes, the end exclusive."""
    values = entry if isinstance(entry, dict) else {}
    width = _BYTES.get(str(values.get("dtype")))
    shape, offsets = _counts(values.get("shape")), _counts(values.get("data_offsets"))
    if width is None or shape is None or offsets is None or len(offsets) != 2:
        raise InputError(f"{path}: its header has no usable entry for {name}")
    start, stop = offsets
    if stop - start != math.prod(shape) * width:
        raise InputError(f"{path}: its header is wrong: {name} has shape {shape} in {stop - start:,} bytes")
    return start, stop


def _counts(values: Any) -> list[int] | None:
    return values if isinstance(values, list) and all(type(each) is int and each >= 0 for each in values) else None


_KEY = "darknet"


def save_safetensors(network: Network, path: str | Path, names: tuple[str, ...]) -> None:
    """Write tensors, cfg and class names. Raises RunError if writing fails, InputError if safetensors is not installed."""
    library = need("safetensors.torch", "safetensors")
    data = library.save(state_of(network), {"format": FORMAT, _KEY: Description.of(network, names).text()})
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))  # safetensors writes them in random order
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(path) as stream:
        stream.write(len(text).to_bytes(8, "little") + text + data[8 + size :])


def read_safetensors(path: str | Path) -> Described:
    """Read description and tensors. Raises InputError for a damaged file, or one without a description."""
    check_header(path)
    library = need("safetensors", "safetensors")
    try:
        with library.safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except library.SafetensorError as error:
        raise InputError(f"{path}: is damaged or not a safetensors file: {error}") from None
    if metadata.get("format") != FORMAT or _KEY not in metadata:
        raise InputError(f"{path}: does not describe its network, expected a file written by convert.py")
    return Described(Description.from_text(metadata[_KEY], str(path)), state)

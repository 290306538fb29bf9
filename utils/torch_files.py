"""Safe loading of files written by torch.save: no code in them is executed."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # raised by torch.load; nothing is unpickled here
from typing import Any

import torch

from utils.errors import InputError
from utils.files import atomic_write

_MOST_PACKED = 2**26  # bytes; only the code of TorchScript is compressed
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # all that PyTorch reads
_ZIP_START = b"PK\x03\x04"
# Raised by PyTorch's reader for an inconsistent pickle.
DAMAGE = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, EOFError,
           NotImplementedError, MemoryError, RecursionError)  # fmt: skip


def is_torch_file(path: str | Path) -> bool:
    """Return whether the content of a file is PyTorch's. Raises InputError if it cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            return stream.read(len(_ZIP_START)) == _ZIP_START
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def save_torch_file(content: Mapping[str, Any], path: str | Path) -> None:
    """Write tensors and plain values atomically. Raises RunError."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    with atomic_write(path) as stream:
        stream.write(buffer.getbuffer())


def check_archive(path: str | Path, what: str) -> None:
    """Raise InputError for a PyTorch file with a damaged part, or with compressed parts too large to be code."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if any(part.compress_type not in _PACKINGS for part in parts):
                raise zipfile.BadZipFile
            packed = sum(part.file_size for part in parts if part.compress_type != zipfile.ZIP_STORED)
            if packed > _MOST_PACKED:
                raise InputError(
                    f"{path}: the {what} unpacks to {packed:,} bytes, expected tensors that are not compressed"
                )
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, RuntimeError, struct.error, zlib.error):
        raise InputError(f"{path}: the {what} is truncated or damaged") from None
    if damaged is not None:
        raise InputError(f"{path}: the {what} is damaged at {damaged[:80]}")


def is_plain_floats(tensor: Any) -> bool:
    """Return whether this is an ordinary dense tensor of floats in memory."""
    is_dense = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and tensor.device.type == "cpu"
    return is_dense and tensor.is_floating_point()


def load_torch_file(path: str | Path, what: str = "checkpoint") -> Any:
    """Load a file of tensors and plain values onto the CPU.

    Raises InputError for a file that is damaged, truncated, or contains other objects.
    """
    check_archive(path, what)
    try:
        with Path(path).open("rb") as stream:  # given a path, PyTorch would select the reader by its name
            return torch.load(stream, map_location="cpu", weights_only=True)
    except (UnpicklingError, *DAMAGE) as error:
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise InputError(
            f"{path}: cannot be loaded safely, expected tensors and plain values only ({reason}); if it contains a whole model, "
            "save its state dict where its code is: "
            f"torch.save(torch.load('{Path(path).name}', weights_only=False)['model'].state_dict(), 'state.pt')"
        ) from None

"""Files of torch.save, loaded safely: no code in them is executed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # only the name of torch.load's refusal; nothing is unpickled here
from typing import Any

import torch

from utils.errors import InputError
from utils.files import atomic_write

_ZIP_START = b"PK\x03\x04"


def is_torch_file(path: str | Path) -> bool:
    """Whether a file is one of PyTorch's, by content. Raises InputError if it cannot be read."""
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


def load_torch_file(path: str | Path, what: str = "checkpoint") -> Any:
    """The content, on the CPU: tensors and plain values only.

    Raises InputError for a file that is damaged, truncated, or contains other objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise InputError(f"{path}: the {what} is damaged at {damaged}")
        return torch.load(path, map_location="cpu", weights_only=True)
    except zipfile.BadZipFile:
        raise InputError(f"{path}: the {what} is truncated or damaged") from None
    except (UnpicklingError, RuntimeError) as error:
        reason = str(error).split("\n", 1)[0]
        raise InputError(
            f"{path}: cannot be loaded safely, expected tensors and plain values only ({reason}); if it holds a whole model, "
            "save its state dict where its code is: "
            f"torch.save(torch.load('{Path(path).name}', weights_only=False)['model'].state_dict(), 'state.pt')"
        ) from None

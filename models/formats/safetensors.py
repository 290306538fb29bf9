"""Networks in .safetensors files: tensors by name, the description as metadata; reading them cannot run code."""

from __future__ import annotations

from pathlib import Path

from models.formats.description import FORMAT, Described, Description
from models.formats.safetensors_header import check_header
from models.formats.state import state_of
from models.network import Network
from utils.errors import InputError
from utils.files import atomic_write
from utils.packages import need

_KEY = "darknet"


def save_safetensors(network: Network, path: str | Path, names: tuple[str, ...]) -> None:
    """Write tensors, cfg and names. Raises RunError (disk full, ...) and InputError when the package is missing."""
    library = need("safetensors.torch", "safetensors")
    data = library.save(state_of(network), {"format": FORMAT, _KEY: Description.of(network, names).text()})
    with atomic_write(path) as stream:
        stream.write(data)


def read_safetensors(path: str | Path) -> Described:
    """Description and tensors. Raises InputError for a damaged file, or one that says nothing of its network."""
    check_header(path)
    library = need("safetensors", "safetensors")
    try:
        with library.safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    except library.SafetensorError as error:
        raise InputError(f"{path}: is damaged or no safetensors file: {error}") from None
    if metadata.get("format") != FORMAT or _KEY not in metadata:
        raise InputError(f"{path}: does not say which network it holds, expected a file that convert.py wrote")
    return Described(Description.from_text(metadata[_KEY], str(path)), state)

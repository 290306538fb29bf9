"""The .weights file: a header, then every stored tensor as float32 in layer order (parser.c load_weights_upto).

Sizes are checked before the first value is copied. If a file is too short, too long, or not a weights file, the error says
what it may be instead.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from models.layers.base import Stored
from models.network import Network
from models.weights_account import Layout, describe_mismatch, file_layout, head_inputs, sniff
from utils.errors import InputError
from utils.files import atomic_write

logger = logging.getLogger(__name__)

MAX_VERSION = 100_000  # larger numbers in a header cannot be a version
HEADER_SIZES = (20, 16)  # with a 64-bit or a 32-bit count of images seen


@dataclass(frozen=True)
class Header:
    """Version and number of training images seen. The original writes version 0.2.5."""

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0

    @property
    def wide(self) -> bool:
        """Whether `seen` takes 64 bits (parser.c load_weights_upto)."""
        return self.major * 10 + self.minor >= 2

    @property
    def transposed(self) -> bool:
        """Whether connected layers are stored transposed, as in the oldest files."""
        return self.major > 1000 or self.minor > 1000

    @property
    def size(self) -> int:
        return HEADER_SIZES[0] if self.wide else HEADER_SIZES[1]

    def pack(self) -> bytes:
        return struct.pack("<iiiQ" if self.wide else "<iiiI", self.major, self.minor, self.revision, self.seen)


@dataclass(frozen=True)
class Loaded:
    """The header, and the indices of the layers that were loaded and of those that were not."""

    header: Header
    layers: tuple[int, ...]
    left_out: tuple[int, ...]


def load_weights(network: Network, path: str | Path, *, partial: bool = False, cutoff: int | None = None) -> Loaded:
    """Read a .weights file into `network`, including the count of images seen.

    By default the file must hold exactly what the cfg needs.

    partial: load what fits. If the file belongs to the same network with another number of classes, that is everything but
        the heads. Otherwise it is the first layers, up to the end of the file (a backbone, .conv.N) or to the point where
        the file must belong to another network, such as a classifier with the same backbone.
    cutoff: read only this many layers and ignore the rest of the file.

    Raises InputError if sizes do not fit, before anything in `network` has changed, and if values are damaged.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            return _load(network, stream, path, partial, cutoff)
    except FileNotFoundError:
        raise InputError(f"{path}: no such weights file") from None
    except OSError as error:
        raise InputError(f"{path}: weights cannot be read: {error.strerror}") from error


def copy_layers(network: Network, source: Network, path: str | Path) -> Loaded:
    """Copy tensors layer by layer from `source` (read from `path`), up to the first layer whose tensors differ in shape.

    If only layers before heads differ, as with another number of classes, all other layers are copied.
    Raises InputError if even the first layer differs.
    """
    own, theirs = dict(_by_layer(network)), dict(_by_layer(source))
    differing = [index for index in own if not _same_tensors(own[index], theirs.get(index, []))]
    if not set(differing) <= head_inputs(network.plan) or len(network.plan.steps) != len(source.plan.steps):
        end = min([*differing, *(index for index in theirs if index not in own), len(network.plan.steps)])
        differing = [index for index in own if index >= end]
    copied = [index for index in own if index not in differing]
    if own and not copied:
        raise InputError(f"{path}: no layer matches {network.plan.cfg.path}")
    with torch.no_grad():
        for index in copied:
            for item, other in zip(own[index], theirs[index], strict=True):
                item.tensor.copy_(other.tensor)
    network.seen, network.version = source.seen, source.version
    _log_loaded(network, path, copied)
    return Loaded(Header(*source.version, seen=source.seen), tuple(copied), tuple(differing))


def save_weights(network: Network, path: str | Path, *, cutoff: int | None = None) -> None:
    """Write a .weights file that the original can read, atomically.

    An unchanged network is written byte for byte as it was read. cutoff: write only this many layers.
    """
    assert not network.is_folded, "a folded network has lost its batch normalisation"
    header = Header(*network.version, seen=network.seen)
    with atomic_write(path) as stream:
        stream.write(header.pack())
        for index, item in network.stored():
            if cutoff is None or index < cutoff:
                stream.write(_to_file(item, header))


def read_header(stream: BinaryIO, path: Path) -> Header:
    """Read the header of a weights file. Raises InputError if it cannot be one."""
    start = stream.read(HEADER_SIZES[0])
    looks_like = sniff(start, path)
    if looks_like:
        raise InputError(f"{path}: is {looks_like}, expected Darknet weights")
    if len(start) < HEADER_SIZES[1]:
        raise InputError(f"{path}: has {len(start)} bytes, too few for the header of Darknet weights")
    major, minor, revision = struct.unpack("<iii", start[:12])
    if min(major, minor, revision) < 0 or max(major, minor, revision) > MAX_VERSION:
        raise InputError(f"{path}: is not a Darknet weights file: its version would be {major}.{minor}.{revision}")
    header = Header(major, minor, revision)
    if len(start) < header.size:
        raise InputError(f"{path}: has {len(start)} bytes, too few for the header of Darknet weights")
    seen = struct.unpack("<Q" if header.wide else "<I", start[12 : header.size])[0]
    stream.seek(header.size)
    return Header(major, minor, revision, seen)


def _load(network: Network, stream: BinaryIO, path: Path, partial: bool, cutoff: int | None) -> Loaded:
    header = read_header(stream, path)
    size = os.fstat(stream.fileno()).st_size - header.size
    sizes = _floats_by_layer(network, cutoff)
    layout = file_layout(network.plan, sizes, size, strict=not partial and cutoff is None, cutoff=cutoff)
    if layout is None:
        raise InputError(f"{path}: {describe_mismatch(network.plan, sizes, size)}")
    chosen = dict(_by_layer(network))
    if partial and 4 * sum(floats for _, floats, _ in layout) != size:
        layout = layout[: _matching(stream, layout, chosen, header)]
    position = header.size
    loaded: list[int] = []
    left_out: list[int] = []
    for index, floats, wanted in layout:
        if wanted:
            stream.seek(position)
            for item in chosen[index]:
                _read_tensor(stream, item, header, f"{path}: layer {index} [{network.plan.steps[index].raw.name}]")
        (loaded if wanted else left_out).append(index)
        position += 4 * floats
    network.seen, network.version = header.seen, (header.major, header.minor, header.revision)
    if partial or cutoff is not None:
        _log_loaded(network, path, loaded)
    return Loaded(header, tuple(loaded), tuple(left_out))


def _log_loaded(network: Network, path: str | Path, loaded: Sequence[int]) -> None:
    layers = dict(_by_layer(network))
    text = f"{path}: loaded {len(loaded)} of {len(layers)} layers with weights"
    missing = next((index for index in layers if index not in loaded), None)
    if missing is not None:
        text += f"; layer {missing} [{network.plan.steps[missing].raw.name}] is the first that is not in the file"
    logger.info("%s", text)


def _same_tensors(own: Sequence[Stored], other: Sequence[Stored]) -> bool:
    return [(item.kind, item.tensor.shape) for item in own] == [(item.kind, item.tensor.shape) for item in other]


def _matching(stream: BinaryIO, layout: Layout, chosen: dict[int, list[Stored]], header: Header) -> int:
    """How many entries of `layout` to take from a file that may continue with layers of another network.

    Data of other layers, misread as rolling variances, contain negative values. If not even the first layer passes this
    test, all entries are returned: the file is damaged, and reading it reports that.
    """
    position, verified = header.size, 0
    for place, (index, floats, _) in enumerate(layout, start=1):
        offset = position
        for item in chosen[index]:
            if item.kind == "rolling_variance":
                stream.seek(offset)
                if np.fromfile(stream, "<f4", item.tensor.numel()).min(initial=0) < 0:
                    return verified or len(layout)
                verified = place
            offset += 4 * item.tensor.numel()
        position += 4 * floats
    return len(layout)


def _by_layer(network: Network) -> Iterator[tuple[int, list[Stored]]]:
    for index, layer in enumerate(network):
        items = list(layer.stored())
        if items:
            yield index, items


def _floats_by_layer(network: Network, cutoff: int | None) -> dict[int, int]:
    """Floats in the file for each layer with stored tensors; layers with dontload have none."""
    return {
        index: sum(item.tensor.numel() for item in items)
        for index, items in _by_layer(network)
        if (cutoff is None or index < cutoff) and not network.plan.steps[index].section.dontload
    }


def _read_tensor(stream: BinaryIO, item: Stored, header: Header, place: str) -> None:
    values = np.empty(item.tensor.numel(), dtype="<f4")
    if stream.readinto(values.data) != values.nbytes:  # type: ignore[attr-defined]
        raise InputError(f"{place} {item.kind}: the file ended while it was read")
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise InputError(
            f"{place} {item.kind}: {bad} of {values.size} values are not finite; the file is damaged or its training diverged"
        )
    if item.kind == "rolling_variance" and values.min(initial=0) < 0:
        raise InputError(
            f"{place} rolling_variance: has values below zero; the file is damaged or belongs to another network"
        )
    shape = item.tensor.shape
    source = torch.from_numpy(values.astype(np.float32, copy=False))
    if item.transposed or (item.legacy_transposed and header.transposed):
        rows = shape[0]
        source = source.view(-1, rows).t()
    with torch.no_grad():
        item.tensor.copy_(source.reshape(shape))


def _to_file(item: Stored, header: Header) -> bytes:
    tensor = item.tensor.detach().to("cpu", torch.float32)
    if item.transposed or (item.legacy_transposed and header.transposed):
        tensor = tensor.reshape(tensor.shape[0], -1).t()
    return tensor.contiguous().numpy().astype("<f4", copy=False).tobytes()

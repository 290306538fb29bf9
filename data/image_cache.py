"""A cache of decoded images, in memory or in a file, so that training does not wait for decoding."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from data.image import Image, image_size, read_image, reads_upright
from utils.errors import InputError, RunError
from utils.files import atomic_write, remove_unfinished
from utils.memory import free_memory

logger = logging.getLogger(__name__)

RAM, DISK = "ram", "disk"
_SHARE = 0.8
"""Fraction of the free memory or disk space that a cache may take."""
_AHEAD = 64
"""Images being decoded or waiting to be stored at a time."""
_SHARED_MEMORY = Path("/dev/shm")
_MAGIC = {upright: np.frombuffer(mark, np.int64) for upright, mark in ((True, b"IMAGES02"), (False, b"STORED02"))}
_COLUMNS = 5


class _Table(NamedTuple):
    """Width and height of each image (0 if it cannot be read), and modification time (ns) and size of its file."""

    sizes_wh: NDArray[np.int64]
    files: NDArray[np.int64]

    def offsets(self, channels: int) -> NDArray[np.int64]:
        """Return the offset of each image's pixels, (images + 1,); the last one is the total."""
        return np.concatenate([[0], (self.sizes_wh.prod(axis=1) * channels).cumsum()])


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """Cache settings.

    kind: RAM or DISK.
    folder: folder of the cache file.
    shared: use shared memory, for workers that are not forked.
    """

    kind: str
    folder: Path
    shared: bool = False


class ImageCache:
    """Images by index; None for an image that cannot be read, or whose size differs from the one in its header.

    pixels: the pixels of all images in sequence; in a tensor, which forked workers share, and other workers if it is in
        shared memory; or in a file, which every process maps into memory.
    """

    def __init__(
        self, table: _Table, readable: NDArray[np.bool_], pixels: torch.Tensor | Path, start: int, channels: int
    ) -> None:
        self._arguments = table, readable, pixels, start, channels
        self._table, self._readable, self._channels, self._offsets = table, readable, channels, table.offsets(channels)
        if isinstance(pixels, torch.Tensor):
            self._pixels: NDArray[np.uint8] = pixels.numpy()
        else:
            self._pixels = np.memmap(pixels, np.uint8, mode="r", offset=start, shape=(int(self._offsets[-1]),))

    def __len__(self) -> int:
        return len(self._readable)

    def __getitem__(self, index: int) -> Image | None:
        """Return an image, uint8 (height, width, channels), read-only."""
        if not self._readable[index]:
            return None
        width, height = self._table.sizes_wh[index]
        pixels = self._pixels[self._offsets[index] : self._offsets[index + 1]]
        return np.asarray(pixels).reshape(height, width, self._channels)

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageCache, self._arguments


def open_cache(images: Sequence[Path], channels: int, options: CacheOptions) -> ImageCache | None:
    """Return a cache of the images; None, with a warning, if they do not fit."""
    table = _table(images)
    path = _path(images, channels, options.folder)
    if options.kind == DISK and (kept := _reopened(path, table, channels)) is not None:
        logger.info("using the image cache %s", path)
        return kept
    needed = int(table.offsets(channels)[-1])
    if not needed:
        return None
    free, where = _room(options)
    if free is not None and needed > _SHARE * free:
        text = "images are not cached: they need %.1f GB, but %.1f GB are free %s%s"
        hint = "; --cache-images disk caches them in a file" if options.kind == RAM else ""
        logger.warning(text, needed / 1e9, free / 1e9, where, hint)
        return None
    if options.kind == RAM:
        return _in_memory(images, table, channels, shared=options.shared)
    return _on_disk(images, table, channels, path)


def _room(options: CacheOptions) -> tuple[int | None, str]:
    """Return the free bytes (None if unknown) and a description of where they are."""
    if options.kind == DISK:
        folder = options.folder.absolute()
        existing = next(each for each in (folder, *folder.parents) if each.is_dir())
        return shutil.disk_usage(existing).free, f"in {options.folder}"
    free = free_memory()
    if options.shared and _SHARED_MEMORY.exists():
        shared = shutil.disk_usage(_SHARED_MEMORY).free
        return (shared if free is None else min(free, shared)), f"in memory and {_SHARED_MEMORY}"
    return free, "in memory"


def _in_memory(images: Sequence[Path], table: _Table, channels: int, *, shared: bool) -> ImageCache:
    offsets = table.offsets(channels)
    pixels = torch.empty(int(offsets[-1]), dtype=torch.uint8)
    if shared:
        pixels.share_memory_()
    flat = pixels.numpy()
    readable = np.zeros(len(images), np.bool_)
    for index, image in enumerate(_decoded(images, table, channels)):
        if image is not None:
            flat[offsets[index] : offsets[index + 1]] = image.reshape(-1)
            readable[index] = True
    return ImageCache(table, readable, pixels, 0, channels)


def _on_disk(images: Sequence[Path], table: _Table, channels: int, path: Path) -> ImageCache | None:
    """Write a new file: header, `_Table` with an additional column `readable`, pixels."""
    logger.info("writing the image cache %s", path)
    readable = np.zeros(len(images), np.bool_)
    offsets = table.offsets(channels)
    remove_unfinished(path.parent)
    try:
        with atomic_write(path) as stream:
            start = _write_header(stream, table, readable)
            for index, image in enumerate(_decoded(images, table, channels)):
                if image is None:
                    stream.write(bytes(int(offsets[index + 1] - offsets[index])))
                else:
                    stream.write(image.tobytes())
                    readable[index] = True
            stream.seek(0)
            _write_header(stream, table, readable)
    except RunError as error:
        logger.warning("images are not cached: %s", error)
        return None
    return ImageCache(table, readable, path, start, channels)


def _write_header(stream: BinaryIO, table: _Table, readable: NDArray[np.bool_]) -> int:
    """Write the header and return the offset of the pixels."""
    rows = np.column_stack([table.sizes_wh, table.files, readable.astype(np.int64)])
    stream.write(np.concatenate([_MAGIC[reads_upright()], [len(rows)], rows.ravel()]).astype("<i8").tobytes())
    return stream.tell()


def _reopened(path: Path, table: _Table, channels: int) -> ImageCache | None:
    """Return the cache in an existing file, unless an image has changed since it was written."""
    if not path.exists():
        return None
    count = len(table.files)
    start = 8 * (2 + count * _COLUMNS)
    head = np.fromfile(path, "<i8", count=start // 8)
    complete = path.stat().st_size == start + int(table.offsets(channels)[-1])
    if complete and len(head) == start // 8 and head[0] == _MAGIC[reads_upright()][0] and head[1] == count:
        rows = head[2:].reshape(count, _COLUMNS)
        if np.array_equal(rows[:, :4], np.column_stack(table)):
            return ImageCache(table, rows[:, 4] != 0, path, start, channels)
    logger.info("%s: images have changed, the cache is rebuilt", path)
    return None


def _path(images: Sequence[Path], channels: int, folder: Path) -> Path:
    """Return the path of the cache file for these images."""
    key = "\n".join([str(channels), *(str(image.absolute()) for image in images)])
    return folder / f"{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.images"


def _decoded(images: Sequence[Path], table: _Table, channels: int) -> Iterator[Image | None]:
    """Yield the images in order, decoded by several threads, a few at a time."""

    def decode(index: int) -> Image | None:
        try:
            image = read_image(images[index], channels)
        except InputError:
            return None  # reported when a sample needs it
        return image if image.shape[1::-1] == tuple(table.sizes_wh[index]) else None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(images), _AHEAD):
            yield from pool.map(decode, range(first, min(first + _AHEAD, len(images))))


def _table(images: Sequence[Path]) -> _Table:
    sizes, files = np.zeros((2, len(images), 2), np.int64)
    for row, path in enumerate(images):
        with suppress(InputError):
            sizes[row] = image_size(path)
        with suppress(OSError):
            found = path.stat()
            files[row] = found.st_mtime_ns, found.st_size
    return _Table(sizes, files)

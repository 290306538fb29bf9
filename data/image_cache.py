"""Decoded pictures of a data set in memory, for training on pictures that fit there."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.augment.crop import Image
from data.image import read_image
from data.image_size import image_size
from utils.errors import InputError

logger = logging.getLogger(__name__)

_SHARE = 0.8
"""Part of the free memory that a cache may take."""


class ImageCache:
    """Pictures by number; None where one cannot be read. Worker processes that are forked share the memory."""

    def __init__(self, images: Sequence[Path], channels: int) -> None:
        self._sizes = _sizes(images)
        lengths = self._sizes.prod(axis=1) * channels
        self._offsets = np.concatenate([[0], lengths.cumsum()])
        self._channels = channels
        self._pixels = np.empty(self._offsets[-1], np.uint8)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            readable = list(pool.map(self._fill, range(len(images)), images))
        self._readable = np.array(readable, np.bool_)

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: int) -> Image | None:
        """uint8 (height, width, channels), not to be written to."""
        return self._place(index) if self._readable[index] else None

    def _place(self, index: int) -> Image:
        width, height = self._sizes[index]
        return self._pixels[self._offsets[index] : self._offsets[index + 1]].reshape(height, width, self._channels)

    def _fill(self, index: int, path: Path) -> bool:
        try:
            image = read_image(path, self._channels)
        except InputError:
            return False  # whoever asks for it reads it again and reports why
        place = self._place(index)
        if image.shape != place.shape:
            return False
        place[:] = image
        return True


def cached(images: Sequence[Path], channels: int) -> ImageCache | None:
    """A cache of the pictures; None, and a warning, if they would not fit into memory."""
    needed = int(_sizes(images).prod(axis=1).sum()) * channels
    free = free_memory()
    if free is not None and needed > _SHARE * free:
        text = "pictures are not kept in memory: they need %.1f GB, free are %.1f GB"
        logger.warning(text, needed / 1e9, free / 1e9)
        return None
    return ImageCache(images, channels)


def free_memory() -> int | None:
    """Bytes of memory that can be had without swapping; None where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    words = lines.get("MemAvailable", "").split()
    return int(words[0]) * 1024 if words else None


def _sizes(images: Sequence[Path]) -> NDArray[np.int64]:
    """Width and height (n, 2) from the files' heads; 0 where there is none."""
    return np.array([_size_or_zero(path) for path in images], np.int64).reshape(-1, 2)


def _size_or_zero(path: Path) -> tuple[int, int]:
    try:
        return image_size(path)
    except InputError:
        return (0, 0)

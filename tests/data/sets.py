"""A small hand-written data set that uses everything a format can express."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from data.annotations import Annotation, Dataset


def write_png(path: Path, size_wh: tuple[int, int]) -> Path:
    """Write a black greyscale PNG."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    width, height = size_wh
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" * (width + 1)) * height)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def pixel_boxes(size_wh: tuple[int, int], xyxy: list[list[float]]) -> np.ndarray:
    scale = np.array([*size_wh, *size_wh], np.float64)
    box = np.asarray(xyxy, np.float64).reshape(-1, 4)
    return np.concatenate([(box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]], axis=1) / scale


def small_set(folder: Path, *, crowd: bool = True, difficult: bool = True) -> Dataset:
    """Three images in two splits: two boxes (one flagged on demand), one box, none."""
    first = write_png(folder / "images" / "first.png", (64, 48))
    second = write_png(folder / "images" / "second one.png", (33, 77))
    empty = write_png(folder / "images" / "empty.png", (10, 10))
    annotations = [
        Annotation.of(
            first,
            pixel_boxes((64, 48), [[1, 2, 30, 40], [0, 0, 64, 48], [10.25, 3, 20, 7.5]]),
            [1, 0, 2],
            crowd=[False, crowd, False],
            difficult=[False, False, difficult],
            areas_px=[700.5, 3072, 43.875],
            size_wh=(64, 48),
            image_id=7,
        ),
        Annotation.of(second, pixel_boxes((33, 77), [[5, 6, 7, 8]]), [2], areas_px=[4], size_wh=(33, 77), image_id=3),
        Annotation.of(empty, size_wh=(10, 10), image_id=11),
    ]
    return Dataset(
        source=folder,
        names=("zebra", "apple", "traffic light"),
        splits={"train": (first, empty), "val": (second, first)},
        read={annotation.image: annotation for annotation in annotations}.__getitem__,
        category_ids=(4, 9, 90),
    )

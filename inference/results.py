"""Detections as files: label text, COCO json, csv, cut-out images. Each writer is a context manager with `add`."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.detections import Detections
from utils.errors import RunError
from utils.files import atomic_write, write_text


def found_text(class_ids: NDArray[np.int64], names: Sequence[str], most: int | None = None) -> str:
    """How many of which class: "2 dog, 1 cat", or "no objects". class_ids: (n,). most: classes that are named."""
    ids, first, counts = np.unique(class_ids, return_index=True, return_counts=True)
    order = np.lexsort((first, -counts))
    parts = [f"{counts[place]} {names[ids[place]]}" for place in order[:most]]
    if other := len(order) - len(parts):
        parts.append(f"{counts[order[most:]].sum()} of {other} other class{'es' if other > 1 else ''}")
    return ", ".join(parts) or "no objects"


def darknet_lines(found: Detections, names: Sequence[str]) -> list[str]:
    """The lines that the original prints for an image, such as "dog: 99%" (image.c draw_detections_v3).

    Boxes come from left to right; a box with several classes has a line for each, the best one first.
    """
    left, top, right, bottom = found.xyxy.T
    order = np.lexsort((-found.scores, bottom, right, top, left))
    return [f"{names[found.class_ids[place]]}: {found.scores[place] * 100:.0f}%" for place in order]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One image or frame with what was found in it.

    path: the file or address it came from. index, time_s: frame number from 0 and its time in seconds, None for images.
    fps: frames a second of its video; live: it comes from a camera or stream. image: uint8 RGB (height, width, 3), without
    anything drawn on it.
    """

    path: str
    image: NDArray[np.uint8]
    found: Detections
    index: int | None = None
    time_s: float | None = None
    fps: float = 0.0
    live: bool = False

    @property
    def stem(self) -> str:
        """Name for files of this image; frames of a video carry their number."""
        stem = Path(self.path).stem
        return stem if self.index is None else f"{stem}_{self.index}"

    @property
    def size_wh(self) -> tuple[int, int]:
        return self.image.shape[1], self.image.shape[0]


class ResultWriter(Protocol):
    """What every writer offers."""

    def add(self, seen: Seen) -> None: ...


def label_text(found: Detections, size_wh: tuple[int, int], *, with_scores: bool = False) -> str:
    """Detections of an image of `size_wh` pixels as lines: class, cx, cy, w, h relative to the image [, score]."""
    low, high = found.xyxy[:, :2], found.xyxy[:, 2:]
    rows = np.concatenate([(low + high) / 2, high - low], axis=1) / np.array([*size_wh, *size_wh])
    if with_scores:
        rows = np.column_stack([rows, found.scores])
    pairs = zip(found.class_ids.tolist(), rows.tolist(), strict=True)
    return "".join(f"{class_id} {' '.join(f'{value:.6g}' for value in row)}\n" for class_id, row in pairs)


class LabelWriter:
    """`folder/<stem>.txt` for each image with objects: class, cx, cy, w, h relative to the image [, score]."""

    def __init__(self, folder: Path, *, with_scores: bool = False) -> None:
        self._folder, self._with_scores = folder, with_scores

    def add(self, seen: Seen) -> None:
        if len(seen.found):
            text = label_text(seen.found, seen.size_wh, with_scores=self._with_scores)
            write_text(self._folder / f"{seen.stem}.txt", text)


class JsonWriter:
    """One COCO result list for the whole run, with file_name and, for video, frame and time_s in every entry.

    category_id is the class index of the cfg. The file appears whole when the run ends, also when it is interrupted.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path, self._names = path, names
        self._stack = ExitStack()

    def __enter__(self) -> JsonWriter:
        self._stream = self._stack.enter_context(atomic_write(self._path))
        self._stream.write(b"[")
        self._separator = b"\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self._stream.write(b"\n]\n")
            self._stack.close()
        else:
            self._stack.__exit__(kind, error, trace)

    def add(self, seen: Seen) -> None:
        stem = Path(seen.path).stem
        common: dict[str, Any] = {"image_id": int(stem) if stem.isdecimal() else stem, "file_name": seen.path}
        if seen.index is not None:
            common |= {"frame": seen.index, "time_s": None if seen.time_s is None else round(seen.time_s, 6)}
        for (x1, y1, x2, y2), score, class_id in seen.found:
            box = [round(float(value), 3) for value in (x1, y1, x2 - x1, y2 - y1)]
            entry = {
                **common,
                "category_id": class_id,
                "name": self._names[class_id],
                "bbox": box,
                "score": round(score, 6),
            }
            self._stream.write(self._separator + json.dumps(entry).encode())
            self._separator = b",\n"


class CsvWriter:
    """One row for each detection, written out after every image so that another program can follow."""

    COLUMNS = ("file_name", "frame", "time_s", "class_id", "name", "score", "x1", "y1", "x2", "y2")

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path, self._names = path, names

    def __enter__(self) -> CsvWriter:
        try:
            self._stream = self._path.open("w", newline="", encoding="utf-8")
        except OSError as error:
            raise RunError(f"{self._path}: cannot be written: {error.strerror}") from error
        self._rows = csv.writer(self._stream)
        self._rows.writerow(self.COLUMNS)
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def add(self, seen: Seen) -> None:
        place = [
            seen.path,
            "" if seen.index is None else seen.index,
            "" if seen.time_s is None else f"{seen.time_s:.6f}",
        ]
        for box, score, class_id in seen.found:
            self._rows.writerow([*place, class_id, self._names[class_id], f"{score:.6f}", *(f"{v:.2f}" for v in box)])
        self._stream.flush()


class CropWriter:
    """`folder/<class>/<stem>_<number>.jpg`: each object cut out of its image."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder, self._names = folder, names

    def add(self, seen: Seen) -> None:
        width, height = seen.size_wh
        for number, (box, _, class_id) in enumerate(seen.found):
            x1, y1, x2, y2 = (int(value) for value in np.clip(box.round(), 0, (width, height, width, height)))
            if x2 <= x1 or y2 <= y1:
                continue
            cut = np.ascontiguousarray(seen.image[y1:y2, x1:x2, ::-1])
            folder = self._folder / _file_name(self._names[class_id])
            with atomic_write(folder / f"{seen.stem}_{number}.jpg") as stream:
                stream.write(cv2.imencode(".jpg", cut)[1].tobytes())


def _file_name(name: str) -> str:
    """A class name without what file systems do not like."""
    return "".join(letter if letter.isalnum() or letter in " -_." else "_" for letter in name).strip(". ") or "_"

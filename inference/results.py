"""The result of one frame, and its output as console text, labels, COCO JSON, CSV and crops."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlparse

import numpy as np
from numpy.typing import NDArray

from data.frames import Frame
from data.image import save_image
from inference.journal import GrowingFile
from utils.detections import Detections
from utils.errors import RunError
from utils.files import publish

logger = logging.getLogger(__name__)

_FRAME_NUMBER = re.compile(r"_\d+$")
TOP = 5  # classes that a classifier reports per image


@dataclass(frozen=True, kw_only=True)
class Result:
    """Detections or class probabilities of one frame.

    names: class names.
    detections: boxes of a detector; empty for a classifier.
    probabilities: float32 (classes,) of a classifier; None for a detector.
    speed: milliseconds of "preprocess", "inference" and "postprocess"; an image of a batch gets its share.
    """

    frame: Frame
    names: tuple[str, ...]
    detections: Detections = field(default_factory=Detections.empty)
    probabilities: NDArray[np.float32] | None = None
    speed: dict[str, float] = field(default_factory=dict)

    def top(self) -> list[tuple[str, float]]:
        """Return name and probability of a classifier's most probable classes, best first."""
        assert self.probabilities is not None, "a detector has no probabilities"
        return [(self.names[each], float(self.probabilities[each])) for each in best_classes(self.probabilities)]

    def lines(self, style: str) -> list[str]:
        """Return console lines. style: "darknet", the original's wording, or "short", a line per image, none for video frames."""
        frame, milliseconds = self.frame, self.speed["inference"]
        if self.probabilities is not None:
            place = frame.path if frame.video is None else f"{frame.path} frame {frame.index}"
            found = [f"{name}: {p:f}" for name, p in self.top()]
            text = ", ".join(f"{name} {p:.3f}" for name, p in self.top())
        else:
            place, found = frame.path, darknet_lines(self.detections, self.names)
            text = f"{frame.size_wh[0]}x{frame.size_wh[1]} {found_text(Counter(self.detections.class_ids.tolist()), self.names)}"
            if style != "darknet" and frame.video is not None:
                return []
        if style == "darknet":
            return [f"{place}: Predicted in {milliseconds:f} milli-seconds.", *found]
        return [f"{place}: {text}, {milliseconds:.1f} ms"]


def best_classes(probabilities: NDArray[np.float32], count: int = TOP) -> list[int]:
    """Return the most probable classes of probabilities (classes,), best first; ties go to the lower class id."""
    best: list[int] = np.argsort(-probabilities, kind="stable")[:count].tolist()
    return best


def found_text(objects: Counter[int], names: Sequence[str], most: int | None = None) -> str:
    """Return the objects per class, "2 dog, 1 cat", or "no objects". most: maximum number of classes to name."""
    ranked = objects.most_common()
    if most is not None and len(ranked) == most + 1:
        most += 1  # "1 of 1 other class" would be no shorter than its name
    parts = [f"{count} {names[class_id]}" for class_id, count in ranked[:most]]
    if others := ranked[len(parts) :]:
        parts.append(f"{sum(count for _, count in others)} of {len(others)} other classes")
    return ", ".join(parts) or "no objects"


def shown(names: Sequence[str], class_id: int) -> bool:
    """Return whether the original reports a class: not if its name starts with dont_show (image.c get_actual_detections)."""
    return not names[class_id].startswith("dont_show")


def darknet_lines(found: Detections, names: Sequence[str], *, ext_output: bool = False) -> list[str]:
    """Return the lines that the original prints for an image, such as "dog: 99%" (image.c draw_detections_v3).

    Boxes are sorted from left to right; a box with several classes has a line for each, the best first, then by class id.
    Classes that are not `shown` are left out. ext_output: add left edge, top edge, width and height.
    """
    left = found.xyxy[:, 0]
    groups = found.ranks if found.ranks is not None else np.unique(found.xyxy, axis=0, return_inverse=True)[1].ravel()
    order = np.lexsort((found.class_ids, groups, left)).tolist()
    lines: list[str] = []
    for _, group in groupby(order, key=lambda row: groups[row]):
        rows = list(group)
        reported = [row for row in rows if shown(names, found.class_ids[row])]
        if not reported:
            continue
        best = max(reported, key=lambda row: found.scores[row])
        x1, y1, x2, y2 = (float(value) for value in found.xyxy[best])
        place = box_text(*(_c_round(value) for value in (x1, y1, x2 - x1, y2 - y1))) if ext_output else ""
        for row in (best, *(row for row in rows if row != best)):
            lines.append(f"{names[found.class_ids[row]]}: {found.scores[row] * np.float32(100):.0f}%{place}")
    return lines


def box_text(left: float, top: float, width: float, height: float) -> str:
    """Return the text that the original's -ext_output adds to a line."""
    return f"\t(left_x: {left:4.0f}   top_y: {top:4.0f}   width: {width:4.0f}   height: {height:4.0f})"


def _c_round(value: float) -> float:
    """Round like C's round(): halves away from zero, keeping the sign of zero."""
    return math.copysign(math.floor(abs(value) + 0.5), value)


def label_text(found: Detections, size_wh: tuple[int, int], *, with_scores: bool = False) -> str:
    """Return a label line per detection: class, cx, cy, w, h relative to the image of `size_wh` pixels [, score]."""
    low, high = found.xyxy[:, :2], found.xyxy[:, 2:]
    rows = np.concatenate([(low + high) / 2, high - low], axis=1) / np.array([*size_wh, *size_wh])
    if with_scores:
        rows = np.column_stack([rows, found.scores])
    pairs = zip(found.class_ids.tolist(), rows.tolist(), strict=True)
    return "".join(f"{class_id} {' '.join(f'{value:.6g}' for value in row)}\n" for class_id, row in pairs)


class FileNames:
    """Unique output file names for the sources of a run: the stem, with a number if it is taken; case is ignored.

    Video frames append their frame number.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._warned = False
        self._taken: set[str] = set()
        self._videos: set[str] = set()  # "clip", whose frames are "clip_0", ...
        self._like_frames: set[str] = set()  # "clip", if an image is called "clip_12"
        self._of_number: dict[int, str] = {}  # 12 -> "012", or "12" if that comes first

    def of_frame(self, frame: Frame) -> str:
        name = self.of_source(frame.path, video=frame.video is not None)
        return name if frame.video is None else f"{name}_{frame.index}"

    def of_source(self, path: str, *, video: bool = False) -> str:
        """Return the name for the image or video `path`."""
        if path not in self._names:
            self._names[path] = self._free_name(path, video)
        return self._names[path]

    def image_id(self, frame: Frame) -> int | str:
        """Return the COCO image id of an image, or of a frame's video: its name as a number if it is one, else the name.

        If several names are the same number (12, 012), only the first gets it.
        """
        name = self.of_source(frame.path, video=frame.video is not None)
        return int(name) if name.isdecimal() and self._of_number[int(name)] == name else name

    def _free_name(self, path: str, video: bool) -> str:
        stem, number = Path(_stream_name(path) if video else path).stem or "image", 1
        name = stem
        while self._is_taken(name.casefold(), video):
            number += 1
            name = f"{stem}_{number}"
        if number > 1 and not self._warned:
            self._warned = True
            logger.warning(
                "several sources have the same name; %s is saved as %s, and others get a number too", path, name
            )
        self._taken.add(name.casefold())
        if name.isdecimal():
            self._of_number.setdefault(int(name), name)
        if video:
            self._videos.add(name.casefold())
        else:
            self._like_frames.add(_FRAME_NUMBER.sub("", name.casefold()))
        return name

    def _is_taken(self, name: str, video: bool) -> bool:
        if name in self._taken:
            return True
        return name in self._like_frames if video else _FRAME_NUMBER.sub("", name) in self._videos - {name}


def _stream_name(path: str) -> str:
    """Return a name for the recording of a video file, camera or URL."""
    if path.isdigit():
        return f"camera{path}"
    if "://" in path:
        address = urlparse(path)
        return Path(address.path).stem or (address.hostname or "stream")
    return path


class JsonWriter:
    """Writer of one COCO result list for the whole run, with file_name and, for video, frame and time_s in every entry.

    category_id is the class index of the cfg. The file is called `<name>.part` until the run ends or is interrupted.
    kept: bytes to keep from an earlier part of the run. keep_part: keep `<name>.part` after a failure.
    """

    def __init__(self, path: Path, names: FileNames, kept: int = 0, *, keep_part: bool = False) -> None:
        self._path, self._names, self._keep_part = path, names, keep_part
        part = json_part(path)
        if kept and not part.exists():
            path.rename(part)
        self.file = GrowingFile(part, kept)
        if not kept:
            self.file.write(b"[")
        self._separator = b"\n" if self.file.size == 1 else b",\n"

    def __enter__(self) -> JsonWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = kind is None or issubclass(kind, KeyboardInterrupt)
        try:
            if ended:
                self.file.write(b"\n]\n")
            self.file.close()
            if ended:
                publish(self.file.path, self._path)
        except RunError:
            if ended:
                raise
        finally:
            if not self._keep_part:
                self.file.path.unlink(missing_ok=True)

    def add(self, result: Result) -> None:
        frame = result.frame
        common: dict[str, Any] = {"image_id": self._names.image_id(frame), "file_name": frame.path}
        if frame.video is not None:
            common |= {"frame": frame.index, "time_s": round(frame.time_s, 6)}
        text = b""
        for (x1, y1, x2, y2), score, class_id in result.detections:
            entry = {
                **common,
                "category_id": class_id,
                "name": result.names[class_id],
                "bbox": [round(float(value), 3) for value in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(score, 6),
            }
            text += self._separator + json.dumps(entry).encode()
            self._separator = b",\n"
        self.file.write(text)


def json_part(path: Path) -> Path:
    """Return the path of the results while the run is unfinished."""
    return path.with_name(f"{path.name}.part")


class CsvWriter:
    """CSV writer that flushes after every image so that another program can follow. kept: see JsonWriter."""

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        rows: Callable[[Result], Iterable[Sequence[Any]]],
        kept: int = 0,
        end: str = "\r\n",
    ) -> None:
        self._rows_of, self._end = rows, end
        self.file = GrowingFile(path, kept)
        if not kept:
            self._write([columns])

    def __enter__(self) -> CsvWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(RunError):  # of rows that `add` could not write
            self.file.close()

    def add(self, result: Result) -> None:
        self._write(self._rows_of(result))

    def _write(self, rows: Iterable[Sequence[Any]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator=self._end).writerows(rows)
        self.file.write(text.getvalue().encode("utf-8", "surrogateescape"))


def detection_csv(path: Path, kept: int = 0) -> CsvWriter:
    """Return a writer of one row per detection."""
    columns = ("file_name", "frame", "time_s", "class_id", "name", "score", "x1", "y1", "x2", "y2")
    return CsvWriter(path, columns, _detection_rows, kept)


def _detection_rows(result: Result) -> Iterator[Sequence[Any]]:
    frame = result.frame
    place = (frame.path, "", "") if frame.video is None else (frame.path, frame.index, f"{frame.time_s:.6f}")
    for box, score, class_id in result.detections:
        yield (*place, class_id, result.names[class_id], f"{score:.6f}", *(f"{value:.2f}" for value in box))


def class_csv(path: Path, kept: int = 0) -> CsvWriter:
    """Return a writer of one row for each of a frame's most probable classes."""
    return CsvWriter(path, ("file", "frame", "rank", "class", "probability"), _class_rows, kept, end="\n")


def _class_rows(result: Result) -> Iterator[Sequence[Any]]:
    for rank, (name, probability) in enumerate(result.top(), start=1):
        yield result.frame.path, result.frame.index, rank, name, f"{probability:.6f}"


def save_crops(folder: Path, result: Result, name: str | None = None) -> list[Path]:
    """Write a crop of each object to `folder/<class>/<name>_<number>.jpg` and return the paths.

    Boxes outside the image are skipped. name: default: the image's stem.
    """
    name = result.frame.stem if name is None else name
    frame, paths = result.frame, []
    for number, (box, _, class_id) in enumerate(result.detections):
        x1, y1, x2, y2 = (int(value) for value in np.clip(box.round(), 0, frame.size_wh * 2))
        if x2 > x1 and y2 > y1:
            paths.append(folder / _file_name(result.names[class_id]) / f"{name}_{number}.jpg")
            save_image(paths[-1], frame.image[y1:y2, x1:x2])
    return paths


def _file_name(name: str) -> str:
    """Return a class name with characters that file systems reject replaced by "_"."""
    return "".join(letter if letter.isalnum() or letter in " -_." else "_" for letter in name).strip(". ") or "_"

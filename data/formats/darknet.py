"""Darknet's data sets: `.data`, `.names`, image lists, and a text file of labels for each image.

A label is a line `class cx cy w h`, relative to the image. Difficult objects (Pascal VOC) have label files of their
own, listed by `difficult=` of the `.data` file in the order of `valid=`.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from data.annotations import MALFORMED, Annotation, Finding
from utils.errors import CfgError, InputError
from utils.files import encoding_of, exists, read_bytes, read_text

# The only folders that the original replaces; a plain /images/ is not among them.
_ORIGINAL_FOLDERS = (
    ("/images/train2017/", "/labels/train2017/"),
    ("/images/val2017/", "/labels/val2017/"),
    ("/JPEGImages/", "/labels/"),
    ("/images/train2014/", "/labels/train2014/"),
    ("/images/val2014/", "/labels/val2014/"),
)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_ID_DIGITS = 18  # more may not fit int64
_REAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def label_candidates(image: Path) -> tuple[Path, ...]:
    """Return the possible label files of an image, in order of preference.

    They are in the image's own folder, where the original looks, or where the last `/images/` of the path is replaced by
    `/labels/`, as in Ultralytics data sets.
    """
    posix = image.as_posix()
    head, found, tail = f"/{posix}".rpartition("/images/")
    replaced = f"{head}/labels/{tail}"[1:] if found else posix
    return tuple(dict.fromkeys((_text_beside(posix), original_label_path(image), _text_beside(replaced))))


def original_label_path(image: Path) -> Path:
    """Return the path where the original reads and writes the labels of an image (replace_image_to_label, src/utils.c)."""
    posix = image.as_posix()
    for folder, labels in _ORIGINAL_FOLDERS:
        posix = posix.replace(folder, labels, 1)
    return _text_beside(posix)


def _text_beside(posix: str) -> Path:
    return Path(f"{posixpath.splitext(posix)[0]}.txt")


class _Rows(NamedTuple):
    """Labels of a text: cxcywh_rel, class id and line number of each, and findings."""

    boxes: list[list[float]]
    class_ids: list[int]
    lines: list[int]
    findings: list[Finding]


def parse_labels(text: str, place: str) -> _Rows:
    """Parse a label file; malformed lines are skipped, whereas the original stops reading there (read_boxes, src/data.c).

    A sixth value, the confidence written by `detect.py --save-conf`, is ignored. A polygon (class x1 y1 x2 y2 x3 y3 ...),
    as labelling tools export segments, becomes its bounding box.
    """
    rows = _Rows([], [], [], [])
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        problem = _bad_label(words)
        if problem:
            rows.findings.append(Finding(kind=MALFORMED, place=place, line=number, text=problem))
            continue
        values = [float(word) for word in words[1:]]
        if len(words) > 6:
            text = f"polygon of {len(values) // 2} corners, expected class cx cy w h"
            rows.findings.append(Finding(kind="polygon", place=place, line=number, text=text))
            values = _bounding_box(values)
        rows.class_ids.append(int(words[0]))
        rows.boxes.append(values[:4])
        rows.lines.append(number)
    return rows


def _bad_label(words: Sequence[str]) -> str | None:
    if len(words) < 5 or (len(words) > 6 and len(words) % 2 == 0):
        return f"found {len(words)} values, expected 5: class cx cy w h"
    if not _WHOLE.fullmatch(words[0]) or (words[0][0] == "-" and words[0].strip("-0")):
        return f"class id: cannot read '{words[0]:.40}', expected an integer, 0 or above"
    if len(words[0].lstrip("+0")) > _ID_DIGITS:
        return f"class id: {words[0]:.40} is too large"
    columns = ("cx", "cy", "w", "h", "confidence") if len(words) <= 6 else ("polygon",) * (len(words) - 1)
    for name, word in zip(columns, words[1:], strict=False):
        if not _REAL.fullmatch(word) or not math.isfinite(float(word)):
            return f"{name}: cannot read '{word}', expected a finite number"
    if len(words) == 6 and not 0 <= float(words[5]) <= 1:
        return f"confidence: {words[5]} is out of range, expected 0 to 1 (or 5 values: class cx cy w h)"
    return None


def _bounding_box(corners: Sequence[float]) -> list[float]:
    """Return cx, cy, w, h of the box around the corners x1, y1, x2, y2, ..."""
    (left, right), (top, bottom) = ((min(axis), max(axis)) for axis in (corners[::2], corners[1::2]))
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]


def format_labels(annotation: Annotation, *, difficult: bool = False) -> str:
    """Return the text of a label file: the ordinary objects, or the difficult ones. The format has no crowds.

    Numbers have up to 17 digits, so that reading restores the same float64 values.
    """
    chosen = (annotation.difficult == difficult) & ~annotation.crowd
    rows = zip(annotation.class_ids[chosen].tolist(), annotation.cxcywh_rel[chosen].tolist(), strict=True)
    return "".join(f"{class_id} {' '.join(map(repr, box))}\n" for class_id, box in rows)


@dataclass(frozen=True)
class TextLabels:
    """A reader of labels from the image's text file. difficult: label files of images with difficult objects."""

    difficult: Mapping[Path, Path] = field(default_factory=dict)

    def __call__(self, image: Path) -> Annotation:
        paths = label_candidates(image)
        for path in paths:
            text = _text_if_there(path)
            if text is not None:
                break
        else:
            tried = ", ".join(map(str, paths))
            missing = Finding(kind="labels missing", place=str(image), text=f"no label file; tried {tried}")
            return Annotation.of(image, findings=(missing,))
        easy = parse_labels(text, str(path))
        hard_path = self.difficult.get(image)
        hard = parse_labels((hard_path and _text_if_there(hard_path)) or "", str(hard_path))
        return Annotation.of(
            image,
            easy.boxes + hard.boxes,
            easy.class_ids + hard.class_ids,
            lines=easy.lines + hard.lines,
            difficult=[False] * len(easy.boxes) + [True] * len(hard.boxes),
            label_path=path,
            findings=(*easy.findings, *hard.findings),
        )


def _text_if_there(path: Path) -> str | None:
    try:
        data = read_bytes(path)
    except OSError:
        return None
    return data.decode(encoding_of(data), "replace")


def read_data(path: str | Path) -> dict[str, str]:
    """Read the options of a `.data` file. Raises InputError."""
    return parse_data(read_text(path, "data", paths=True), str(path))


def parse_data(text: str, place: str) -> dict[str, str]:
    """Parse the options of a `.data` file. The first value of a repeated key is used, as in the original (option_find)."""
    options: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if not bare or bare[0] in "#;":
            continue
        key, equals, value = bare.partition("=")
        if not equals:
            raise CfgError(place, number, f"cannot read '{bare}', expected key = value")
        options.setdefault(key.strip(), value.strip())
    return options


def format_data(options: Mapping[str, str]) -> str:
    """Return the text of a `.data` file."""
    return "".join(f"{key} = {value}\n" for key, value in options.items())


def candidates(entry: str, folder: Path) -> tuple[Path, ...]:
    """Return where an entry of a `.data` file in `folder` may be: relative to the working directory, as in the original,
    to `folder` or to its parent.

    A leading `data/` is optional: data sets exported by CVAT are meant to be unpacked into the original's folder data.
    Backslashes of an entry written on Windows may separate folders.
    """
    slashed = entry.replace("\\", "/")
    entries = (entry, entry.removeprefix("data/"), slashed, slashed.removeprefix("data/"))
    return tuple(dict.fromkeys(base / each for each in entries for base in (Path(), folder, folder.parent)))


def first_existing(tried: Collection[Path], what: str) -> Path:
    """Return the first path that exists. Raises InputError, calling it `what`, if there is none."""
    for path in tried:
        if exists(path):
            return path
    raise InputError(f"{what}: no such file or folder; tried {', '.join(map(str, tried))}")


def read_names(path: str | Path) -> tuple[str, ...]:
    """Read class names, in order of class id, from a names file, or from the one that a .data file refers to.

    The latter is searched for as by `candidates`. Raises InputError if it is missing or empty.
    """
    if Path(path).suffix.lower() == ".data":
        options = read_data(path)
        if "names" not in options:
            raise InputError(f"{path}: no 'names', expected names = <file with one class name per line>")
        path = first_existing(candidates(options["names"], Path(path).parent), f"{path}: names")
    names = tuple(line.strip() for line in read_text(path, "names").rstrip().splitlines())
    if not names:
        raise InputError(f"{path}: no names, expected one class name per line")
    return names


def format_list(entries: Iterable[object]) -> str:
    """Return the text of a list of images or of a `.names` file."""
    return "".join(f"{entry}\n" for entry in entries)


def parse_list(text: str) -> list[str]:
    """Return the entries of a list file; those written on Windows, judging by the first one, with slashes."""
    entries = [bare for line in text.splitlines() if (bare := line.strip())]
    if entries and "\\" in entries[0] and not exists(entries[0]):
        return [entry.replace("\\", "/") for entry in entries]
    return entries


def read_list(path: Path) -> tuple[Path, ...]:
    """Read the paths in a list file, one per line."""
    entries = parse_list(read_text(path, "list", paths=True))
    base = list_base(entries, path)
    if entries and not exists(base / entries[0]) and exists(path.parent / entries[0].removeprefix("data/")):
        return tuple(path.parent / entry.removeprefix("data/") for entry in entries)  # see `candidates`
    return tuple(base / entry for entry in entries)


def read_difficult(path: Path, images: Sequence[Path]) -> dict[Path, Path]:
    """Read the list of label files of difficult objects, one line per image in `images`. Raises InputError."""
    hard = read_list(path)
    if len(hard) != len(images):
        raise InputError(f"{path}: has {len(hard)} lines, expected {len(images)} as in valid")
    return {image: label_candidates(entry)[-1] for image, entry in zip(images, hard, strict=True)}


def list_base(entries: Sequence[str], path: Path) -> Path:
    """Return the folder that entries of the list file `path` are relative to, judging by the first one.

    This is the working directory, as in the original, or the folder of the list.
    """
    first = entries[0] if entries else ""
    here = (Path(first).is_absolute() or exists(first)) and not first.startswith("./")
    return Path() if here or not exists(path.parent / first) else path.parent


def class_names(path: str | Path | None, classes: int, cfg: str | Path) -> tuple[str, ...]:
    """Read the names of the `classes` of `cfg` from a names file; without one, return "class 0", "class 1", ...

    Raises InputError if the file has a different number of names.
    """
    if path is None:
        return tuple(f"class {number}" for number in range(classes))
    names = read_names(path)
    if len(names) != classes:
        raise InputError(f"{path}: has {len(names)} names, {cfg} has classes={classes}")
    return names

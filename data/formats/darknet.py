"""Darknet's data sets: `.data`, `.names`, lists of images and a text file of labels for each image.

A label is a line `class cx cy w h`, relative to the image. Difficult objects (Pascal VOC) stand in label files
of their own, named by the list `difficult=` of the `.data` file, line by line beside `valid=`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from data.annotations import Annotation, Finding
from utils.errors import CfgError, InputError
from utils.files import read_text

# replace_image_to_label (src/utils.c): the only folders which the original looks behind; a plain /images/ is not one.
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
    """Where the labels of an image may be, first choice first.

    The image's own folder; the original's replacements (src/utils.c, replace_image_to_label);
    the last `/images/` replaced by `/labels/`, as the Ultralytics lineage has it.
    """
    posix = image.as_posix()
    original = posix
    for folder, labels in _ORIGINAL_FOLDERS:
        original = original.replace(folder, labels, 1)
    head, found, tail = posix.rpartition("/images/")
    replaced = f"{head}/labels/{tail}" if found else posix
    paths = (Path(path).with_suffix(".txt") for path in (posix, original, replaced))
    return tuple(dict.fromkeys(paths))


class _Rows(NamedTuple):
    """Labels of one text: cxcywh_rel, class ids and line numbers, row by row, and what could not be read."""

    boxes: list[list[float]]
    class_ids: list[int]
    lines: list[int]
    findings: list[Finding]


def parse_labels(text: str, place: str) -> _Rows:
    """Labels of a label file's text; a bad line costs that line alone.

    The original stops reading at the first bad line (src/data.c, read_boxes).
    """
    rows = _Rows([], [], [], [])
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        problem = _bad_label(words)
        if problem:
            rows.findings.append(Finding(kind="malformed label", place=place, line=number, text=problem))
            continue
        rows.class_ids.append(int(words[0]))
        rows.boxes.append([float(word) for word in words[1:]])
        rows.lines.append(number)
    return rows


def _bad_label(words: Sequence[str]) -> str | None:
    if len(words) != 5:
        shape = ", not the corners of a polygon" if len(words) > 6 and len(words) % 2 else ""
        return f"found {len(words)} values, expected 5: class cx cy w h{shape}"
    if not _WHOLE.fullmatch(words[0]) or int(words[0]) < 0:
        return f"class id: cannot read '{words[0]}', expected a whole number from 0 on"
    if len(words[0].lstrip("+0")) > _ID_DIGITS:
        return f"class id: {words[0]} is too large"
    for name, word in zip(("cx", "cy", "w", "h"), words[1:], strict=True):
        if not _REAL.fullmatch(word) or not math.isfinite(float(word)):
            return f"{name}: cannot read '{word}', expected a finite number"
    return None


def format_labels(annotation: Annotation, *, difficult: bool = False) -> str:
    """Text of a label file: the ordinary objects, or the difficult ones. Crowds are left out, the format has none.

    17 digits at most: what is read back is the same float64.
    """
    chosen = (annotation.difficult == difficult) & ~annotation.crowd
    rows = zip(annotation.class_ids[chosen].tolist(), annotation.cxcywh_rel[chosen].tolist(), strict=True)
    return "".join(f"{class_id} {' '.join(map(repr, box))}\n" for class_id, box in rows)


@dataclass(frozen=True)
class TextLabels:
    """Reads the labels of an image from its text file.

    difficult: label file of the difficult objects of an image, for the images that have one.
    """

    difficult: Mapping[Path, Path] = field(default_factory=dict)

    def __call__(self, image: Path) -> Annotation:
        candidates = label_candidates(image)
        for path in candidates:
            text = _text_if_there(path)
            if text is not None:
                break
        else:
            tried = ", ".join(map(str, candidates))
            missing = Finding(kind="labels missing", place=str(image), text=f"no labels; tried {tried}")
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
        return path.read_bytes().decode("utf-8-sig", "replace")
    except OSError:
        return None


def parse_data(text: str, place: str) -> dict[str, str]:
    """Options of a `.data` file. For a repeated key the first value holds, as in the original (option_find)."""
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
    """Text of a `.data` file."""
    return "".join(f"{key} = {value}\n" for key, value in options.items())


def parse_names(text: str) -> tuple[str, ...]:
    """Class names, one a line in order of id; empty lines at the end do not count."""
    return tuple(line.strip() for line in text.rstrip().splitlines())


def format_names(names: Iterable[str]) -> str:
    """Text of a `.names` file."""
    return "".join(f"{name}\n" for name in names)


def read_names(path: str | Path) -> tuple[str, ...]:
    """Names file. Raises InputError when there is none or it is empty."""
    names = parse_names(read_text(path, "names"))
    if not names:
        raise InputError(f"{path}: no names, expected one class name a line")
    return names


def parse_list(text: str) -> tuple[str, ...]:
    """Entries of a list of images, one a line; empty lines do not count."""
    return tuple(bare for line in text.splitlines() if (bare := line.strip()))


def format_list(paths: Iterable[Path]) -> str:
    """Text of a list of images."""
    return "".join(f"{path}\n" for path in paths)


def read_list(path: Path) -> tuple[Path, ...]:
    """Images of a list file.

    A relative entry is meant from the working folder, as in the original, or from the list's own folder;
    which of the two is settled once, by the first entry.
    """
    entries = parse_list(read_text(path, "list"))
    if not entries:
        return ()
    here = (Path(entries[0]).is_absolute() or Path(entries[0]).exists()) and not entries[0].startswith("./")
    base = Path() if here or not (path.parent / entries[0]).exists() else path.parent
    return tuple(base / entry for entry in entries)


def class_names(path: str | Path | None, classes: int, cfg: str | Path) -> tuple[str, ...]:
    """Names for all `classes` of `cfg`, from a names file; without one "class 0", "class 1", ...

    Raises InputError when the file has another number of names.
    """
    if path is None:
        return tuple(f"class {number}" for number in range(classes))
    names = read_names(path)
    if len(names) != classes:
        raise InputError(f"{path}: has {len(names)} names, {cfg} has classes={classes}")
    return names

"""Folders that hold COCO annotation files: COCO's own layout, and the one with a json beside the pictures of each split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from utils.errors import InputError

SPLITS = ("train", "val", "test")
_PATTERNS = ("instances*.json", "annotations/instances*.json", "*/_annotations.coco.json", "_annotations.coco.json")


def split_of(path: Path) -> str | None:
    """`instances_val2017.json`, `_annotations.coco.json` in `valid/`: a word in the name of file or folder begins with the
    split."""
    for name in (path.stem, path.parent.name):
        for split in SPLITS:
            if re.search(rf"(?<![a-z]){split}", name.lower()) or split.capitalize() in name:
                return split
    return None


def annotation_files(folder: Path) -> tuple[Path, ...]:
    """The COCO json files of a folder, by their usual names; empty if there is none."""
    return tuple(path for pattern in _PATTERNS for path in sorted(folder.glob(pattern)))


def choose(files: Sequence[Path], split: str | None, stand_ins: Sequence[str]) -> Path:
    """The file of a split, or of the first of `stand_ins`; the only one there is. Raises InputError if several would do."""
    for wanted in (split, *stand_ins):
        found = [path for path in files if split_of(path) == wanted]
        if len(found) == 1:
            return found[0]
    if len(files) == 1:
        return files[0]
    listed = ", ".join(str(path) for path in files)
    raise InputError(f"{files[0].parent}: several annotation files for split '{split}', name one of {listed}")

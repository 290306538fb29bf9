"""Ultralytics' YAML: `path`, `train`, `val`, `test`, and `names` or `nc`. Labels are Darknet's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from utils import documents
from utils.errors import InputError
from utils.packages import need

SPLITS = ("train", "val", "test")
_MOST_CLASSES = 100_000


def parse_yaml(text: str, place: str) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]], str]:
    """Return class names, entries of each split, and the root folder as written. Raises InputError."""
    content = documents.parse_yaml(text, place)
    if not isinstance(content, dict):
        raise InputError(f"{place}: expected keys such as train, val and names")
    splits: dict[str, tuple[str, ...]] = {}
    for split in SPLITS:
        entry = content.get(split)
        if entry:
            entries = entry if isinstance(entry, list) else [entry]
            splits[split] = tuple(str(each) for each in entries)
    if not splits:
        raise InputError(f"{place}: none of train, val, test, expected a folder or a list of images")
    return _names(content, place), splits, str(content.get("path") or "")


def _names(content: Mapping[str, Any], place: str) -> tuple[str, ...]:
    names, count = content.get("names"), content.get("nc")
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise InputError(f"{place}: names: ids must be 0, 1, 2, ... without gaps, found {sorted(names, key=str)}")
        names = [names[i] for i in range(len(names))]
    if names is None and isinstance(count, int):
        if count > _MOST_CLASSES:
            raise InputError(f"{place}: nc is {count}, expected at most {_MOST_CLASSES:,} classes")
        names = [f"class{i}" for i in range(count)]
    if not isinstance(names, list) or not names:
        raise InputError(f"{place}: no names, expected 'names' (or at least their number 'nc')")
    if count is not None and count != len(names):
        raise InputError(f"{place}: nc is {count}, but there are {len(names)} names")
    return tuple(str(name) for name in names)


def format_yaml(names: Sequence[str], splits: Mapping[str, Sequence[str]], root: str) -> str:
    """Return the text of a YAML file; `splits` are folders or lists, relative to `root`."""
    content: dict[str, Any] = {"path": root}
    for split, entries in splits.items():
        content[split] = entries[0] if len(entries) == 1 else list(entries)
    content["names"] = dict(enumerate(names))
    return str(need("yaml", "pyyaml").safe_dump(content, sort_keys=False, allow_unicode=True))

"""Names of a network's classes."""

from __future__ import annotations

from pathlib import Path

from data.formats.darknet import read_names
from utils.errors import InputError


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

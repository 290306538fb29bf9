"""Cfg text to raw sections and back.

The lexical rules are the original's (parser.c read_cfg, utils.c strip, option_list.c read_option and option_find):
spaces, tabs and carriage returns are removed from a line, even inside values; a line that begins with `#` or `;` is a
comment; there are no trailing comments; the key ends at the first `=`; the first of repeated keys counts. Where the
original crashes or prints a message, there is an error or a warning with file and line.
"""

from __future__ import annotations

import difflib
import functools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from utils.errors import CfgError, InputError
from utils.files import atomic_write, exists, is_file, read_text

logger = logging.getLogger(__name__)

_OWN = Path(__file__).resolve().parent.parent / "cfg"

_DROPPED = str.maketrans("", "", " \t\r")
_MAX_CHARACTERS = 16 * 1024 * 1024


class Entry(NamedTuple):
    """A line `key=value` with whitespace removed; `line` counts from 1."""

    key: str
    value: str
    line: int


@dataclass(frozen=True)
class RawSection:
    """A section `[name]` with its uninterpreted entries in file order."""

    path: str
    name: str
    line: int
    entries: tuple[Entry, ...]

    def find(self, key: str) -> Entry | None:
        """Return the entry that is used for `key`: the first one (option_list.c option_find)."""
        return self.effective.get(key)

    @functools.cached_property
    def effective(self) -> dict[str, Entry]:
        """Key -> the entry that is used for it."""
        found: dict[str, Entry] = {}
        for entry in self.entries:
            found.setdefault(entry.key, entry)
        return found

    def error(self, text: str, entry: Entry | None = None) -> CfgError:
        """Return a CfgError located at this section or at one of its entries."""
        return CfgError(self.path, entry.line if entry else self.line, f"[{self.name}] {text}")


@dataclass(frozen=True)
class Cfg:
    """A cfg file: its exact text and the sections parsed from it."""

    path: str
    text: str
    sections: tuple[RawSection, ...]

    def with_values(self, section: int, values: Mapping[str, object]) -> Cfg:
        """Return a copy with some keys of a section set; all other lines, including comments, stay the same.

        The effective line of an existing key is rewritten; a new key is added after the section's last entry.
        """
        lines = self.text.split("\n")
        raw = self.sections[section]
        ending = "\r" if lines[raw.line - 1].endswith("\r") else ""
        added = []
        for key, value in values.items():
            entry = raw.find(key)
            if entry:
                lines[entry.line - 1] = f"{key}={value}{ending}"
            else:
                added.append(f"{key}={value}{ending}")
        last = raw.entries[-1].line if raw.entries else raw.line
        if added and last == len(lines):
            lines[last - 1] = lines[last - 1].rstrip("\r") + ending
            added[-1] = added[-1].rstrip("\r")
        lines[last:last] = added
        return parse("\n".join(lines), self.path)

    def write(self, path: str | Path) -> None:
        """Write the text; an unchanged cfg is identical to the file it was read from."""
        with atomic_write(path) as stream:
            stream.write(self.text.encode("utf-8", "surrogateescape"))


def read(path: str | Path) -> Cfg:
    """Read a cfg file; if there is none, the project's own of that name. Raises InputError (CfgError with the line)."""
    path = _own_or(Path(path))
    if not exists(path):
        near = difflib.get_close_matches(path.name, [each.name for each in path.parent.glob("*.cfg")], 1, 0.8)
        raise InputError(
            f"{path}: no such cfg file" + "".join(f"; did you mean {path.with_name(name)}?" for name in near)
        )
    return parse(read_text(path, "cfg", exact=True), str(path))


def _own_or(path: Path) -> Path:
    """Return `path`, or the project's cfg of that name if it does not exist, so that these are found from any folder."""
    own = _OWN / path.name.replace("prn31", "prn3l")  # PRN with 3 levels, which the CSPNet paper prints as PRN31
    return own if str(path.parent) in (".", "cfg") and not exists(path) and is_file(own) else path


def parse(text: str, path: str = "<cfg>") -> Cfg:
    """Read cfg text; `path` is for messages."""
    _refuse_what_is_no_cfg(text, path)
    heads: list[tuple[str, int]] = []
    entries: list[list[Entry]] = []
    for number, line in _meaningful_lines(text):
        if line.startswith("["):
            heads.append((_section_name(line, path, number), number))
            entries.append([])
            continue
        if not heads:
            raise CfgError(path, number, f"expected a [section] before {_shorten(line)}")
        entry = _entry(line, path, number)
        if entry:
            entries[-1].append(entry)
    if not heads:
        raise CfgError(path, None, "has no sections, expected [net] and layers")
    pairs = zip(heads, entries, strict=True)
    return Cfg(path, text, tuple(RawSection(path, name, line, tuple(found)) for (name, line), found in pairs))


def _meaningful_lines(text: str) -> Iterator[tuple[int, str]]:
    lines = text.removeprefix("\ufeff").translate(_DROPPED).split("\n")
    for number, stripped in enumerate(lines, start=1):
        if stripped and stripped[0] not in "#;":
            yield number, stripped


def _section_name(line: str, path: str, number: int) -> str:
    if not line.endswith("]") or len(line) < 3:
        raise CfgError(path, number, f"expected [section] alone on its line, found {_shorten(line)}")
    return line[1:-1]


def _entry(line: str, path: str, number: int) -> Entry | None:
    key, equals, value = line.partition("=")
    if not equals or not key:
        raise CfgError(path, number, f"expected key=value, found {_shorten(line)}")
    if not value:  # option_list.c read_option prints such a line and skips it
        logger.warning("%s:%d: %s has no value, using its default", path, number, key)
        return None
    return Entry(key, value, number)


def _refuse_what_is_no_cfg(text: str, path: str) -> None:
    start = text[:512].lstrip("\ufeff \t\r\n").lower()
    if start.startswith(("<!doctype", "<html", "<?xml")):
        raise CfgError(path, 1, "is an HTML page, expected a Darknet cfg; download the raw file instead")
    if start.startswith("version https://git-lfs"):
        raise CfgError(path, 1, "is a Git LFS pointer, expected a Darknet cfg; run `git lfs pull`")
    if "\0" in text[:65536]:
        raise CfgError(
            path, None, "is a binary file, expected the text of a Darknet cfg (are cfg and weights swapped?)"
        )
    if len(text) > _MAX_CHARACTERS:
        raise CfgError(path, None, f"has {len(text):,} characters, expected at most {_MAX_CHARACTERS:,}")


def _shorten(line: str) -> str:
    return repr(line if len(line) <= 60 else line[:57] + "...")

"""Typed options: frozen dataclasses whose fields are the keys of a cfg section.

A field defines its key: type, default, range, spelling in the file and meaning. The reader, the report of keys, the
writer of cfg text and the generated documentation all use the fields.

Numbers are read like the original's atoi and atof, which stop at a trailing comment (`steps=100 # later`); text that they
would silently misread (`three`, `0,001`) is an error.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from utils.cfg import Entry, RawSection
from utils.errors import CfgError

logger = logging.getLogger(__name__)

_INT = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_INT_LIMIT = 2**31 - 1
_MOST_DIGITS = 4000  # Python rejects longer integers
_Self = TypeVar("_Self", bound="Options")


def option(
    default: Any,
    doc: str = "",
    *,
    key: str | None = None,
    least: float | None = None,
    most: float | None = None,
    choices: Collection[str] | None = None,
    otherwise: str | None = None,
    aliases: Mapping[str, str] | None = None,
) -> Any:
    """Declare a field of an Options class.

    default: value if the key is absent.
    doc: meaning, for the documentation.
    key: spelling in the file if it differs from the field's name.
    least, most: inclusive range of the number (of each number of a list).
    choices: allowed words; any other is an error, or replaced by `otherwise` with a warning where the original does so.
    """
    limits = {"least": least, "most": most, "choices": choices, "otherwise": otherwise, "aliases": aliases}
    return field(default=default, metadata={"doc": doc, "key": key, **limits})


def ignored(default: Any, reason: str, *, key: str | None = None) -> Any:
    """Declare a field that the original knows but that has no effect here; the report shows the reason."""
    return field(default=default, metadata={"doc": reason, "key": key, "ignored": reason})


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of all option classes; see `option`."""

    @classmethod
    def from_raw(cls: type[_Self], raw: RawSection) -> _Self:
        """Read the fields of this class from a section. Raises CfgError with line, key and expectation."""
        values = {}
        known = _known(cls)
        for key, entry in raw.effective.items():
            found = known.get(key)
            if found is not None:
                item, kind, is_list = found
                read = _read_list if is_list else _read_one
                values[item.name] = read(raw, entry, entry.value, kind, item.metadata)
        return cls(**values)

    @classmethod
    def keys(cls) -> dict[str, dataclasses.Field[Any]]:
        """Return a map from the spelling in the file to the field."""
        return {key: item for key, (item, _, _) in _known(cls).items()}


_Known = dict[str, tuple[dataclasses.Field[Any], type, bool]]
_KNOWN: dict[type[Options], _Known] = {}


def _known(cls: type[Options]) -> _Known:
    """Map the spelling in the file to (field, type of its value or of its list's values, whether it is a list)."""
    if cls not in _KNOWN:
        hints = get_type_hints(cls)
        _KNOWN[cls] = {key_of(item): (item, *_value_type(hints[item.name])) for item in dataclasses.fields(cls)}
    return _KNOWN[cls]


def _value_type(hint: Any) -> tuple[type, bool]:
    kinds = get_args(hint)
    if type(None) in kinds:
        hint = next(kind for kind in kinds if kind is not type(None))
    return (get_args(hint)[0], True) if get_origin(hint) is tuple else (hint, False)


def key_of(item: dataclasses.Field[Any]) -> str:
    """Return the spelling of a field in the cfg file."""
    return item.metadata.get("key") or item.name


def report_keys(raw: RawSection, audiences: Iterable[type[Options]]) -> dict[str, list[Entry]]:
    """Return the entries of a section, grouped as "understood", "ignored", "unknown" and "repeated"."""
    known = {key: item for audience in audiences for key, item in audience.keys().items()}
    report: dict[str, list[Entry]] = {"understood": [], "ignored": [], "unknown": [], "repeated": []}
    for entry in raw.entries:
        item = known.get(entry.key)
        if item is None:
            report["unknown"].append(entry)
        elif raw.find(entry.key) is not entry:
            report["repeated"].append(entry)
        else:
            report["ignored" if "ignored" in item.metadata else "understood"].append(entry)
    return report


_repeats: ContextVar[dict[tuple[str, str], list[CfgError]] | None] = ContextVar("repeats", default=None)


def warn(raw: RawSection, entry: Entry | None, text: str) -> None:
    """Warn about a section or one of its entries."""
    place, repeats = raw.error(text, entry), _repeats.get()
    if repeats is None:
        logger.warning("%s", place)
    else:
        repeats.setdefault((raw.name, text), []).append(place)


@contextmanager
def count_repeats() -> Iterator[None]:
    """Log equal warnings of the block once, at its end, with the place of the first and their number."""
    found: dict[tuple[str, str], list[CfgError]] = {}
    token = _repeats.set(found)
    try:
        yield
    finally:
        _repeats.reset(token)
        for places in found.values():
            more = f" (and {len(places) - 1} more times)" if len(places) > 1 else ""
            logger.warning("%s%s", places[0], more)


def warn_unknown(raw: RawSection, audiences: Collection[type[Options]]) -> None:
    """Warn about every unknown and every repeated key of the section."""
    report = report_keys(raw, audiences)
    for entry in report["unknown"]:
        warn(raw, entry, f"{entry.key}: unknown key, it has no effect")
    for entry in report["repeated"]:
        first = raw.find(entry.key)
        if first and first.value != entry.value:
            warn(raw, entry, f"{entry.key} is repeated, the first value {first.value} (line {first.line}) is used")


def _read_list(raw: RawSection, entry: Entry, text: str, kind: type, metadata: Any) -> tuple[Any, ...]:
    parts = re.split(r"[#;]", text, maxsplit=1)[0].split(",")
    if len(parts) > 1 and not parts[-1]:
        parts.pop()
    return tuple(_read_one(raw, entry, part, kind, metadata) for part in parts)


def _read_one(raw: RawSection, entry: Entry, text: str, kind: type, metadata: Any) -> Any:
    if kind is str:
        return _read_word(raw, entry, text, metadata)
    value = _READERS[kind](raw, entry, text)
    least, most = metadata.get("least"), metadata.get("most")
    if (least is not None and value < least) or (most is not None and value > most):
        bounds = f"at least {least}" if most is None else f"at most {most}" if least is None else f"{least} to {most}"
        raise raw.error(f"{entry.key}: {text} is out of range, expected {bounds}", entry)
    return value


def _read_word(raw: RawSection, entry: Entry, text: str, metadata: Any) -> str:
    choices, otherwise, aliases = (metadata.get(key) for key in ("choices", "otherwise", "aliases"))
    if aliases and text in aliases:
        word = aliases[text]
        warn(raw, entry, f"{entry.key}: {text} is read as {word}, the same function; the original does not know {text}")
        return str(word)
    if choices is not None and text not in choices:
        if otherwise is not None:
            known = ", ".join(choices)
            warn(raw, entry, f"{entry.key}: unknown value {text!r}, {otherwise} is used; known are {known}")
            return str(otherwise)
        raise raw.error(f"{entry.key}: unknown value {text!r}, expected one of {', '.join(choices)}", entry)
    return text


def _read_int(raw: RawSection, entry: Entry, text: str) -> int:
    match = _INT.match(text)
    if match and len(match[0]) > _MOST_DIGITS:
        raise raw.error(f"{entry.key}: a number of {len(match[0])} digits is out of range", entry)
    if match and _ends(text, match.end()):
        value = int(match[0])
        if abs(value) > _INT_LIMIT:
            raise raw.error(f"{entry.key}: {text} is out of range, expected a 32-bit whole number", entry)
        return value
    number = _FLOAT.match(text)
    if match and number and _ends(text, number.end()):  # atoi reads the digits before the point
        if float(number[0]) != int(match[0]):
            logger.warning("%s:%d: %s=%s is read as %s", raw.path, entry.line, entry.key, text, match[0])
        return int(match[0])
    if number and text.startswith(".") and _ends(text, number.end()):
        logger.warning("%s:%d: %s=%s is read as 0", raw.path, entry.line, entry.key, text)
        return 0
    raise raw.error(f"{entry.key}: cannot read {text!r}, expected a whole number", entry)


def _read_float(raw: RawSection, entry: Entry, text: str) -> float:
    match = _FLOAT.match(text)
    if not match or not _ends(text, match.end()) or not math.isfinite(float(match[0])):
        raise raw.error(f"{entry.key}: cannot read {text!r}, expected a number", entry)
    return float(match[0])


def _read_bool(raw: RawSection, entry: Entry, text: str) -> bool:
    return _read_int(raw, entry, text) != 0


def _ends(text: str, position: int) -> bool:
    return position == len(text) or text[position] in "#;"


_READERS: dict[type, Callable[[RawSection, Entry, str], Any]] = {int: _read_int, float: _read_float, bool: _read_bool}

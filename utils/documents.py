"""JSON and YAML from untrusted files: plain values, or one error with the line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from utils.errors import InputError
from utils.packages import need

_MOST_CHARACTERS = 1_000_000  # of YAML text, which takes about a second to parse
_MOST_VALUES = 1_000_000  # of YAML after expanding aliases
_DEEPEST = 100


def parse_json(text: str | bytes, path: str, part: str = "") -> Any:
    """Parse a JSON text; `part` names it if it is not the whole file. Raises InputError."""
    try:
        return json.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # ValueError: also a number of thousands of digits, and bytes that cannot be decoded
        line = getattr(error, "lineno", None)
        place = f"{path}: {part} is" if part else f"{path}:{line}:" if line else f"{path}:"
        raise InputError(f"{place} not valid JSON: {error}") from None


def parse_yaml(text: str, place: str) -> Any:
    """Parse a YAML text with standard tags only and without alias bombs. Raises InputError."""
    if len(text) > _MOST_CHARACTERS:
        raise InputError(f"{place}: has {len(text):,} characters, expected at most {_MOST_CHARACTERS:,} of YAML")
    yaml = need("yaml", "pyyaml")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_size(yaml, yaml.parse(text, Loader=loader))
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{place}:{mark.line + 1}" if mark else place
        raise InputError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise InputError(f"{place}: not valid YAML: {error}") from None  # a date such as 2001-99-99, !!bool maybe, ...


def _check_size(yaml: Any, events: Iterable[Any]) -> None:
    """Raise ValueError for a text that is nested too deeply, or too large once its aliases are expanded."""
    sizes: dict[str, int] = {}  # number of values, by anchor
    around: list[tuple[str | None, int]] = [(None, 0)]  # anchor and number of values so far of each open collection
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            around.append((event.anchor, 1))
            if len(around) > _DEEPEST:
                raise ValueError(f"is nested deeper than {_DEEPEST}")
            continue
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"*{event.anchor} stands for nothing before it, or contains itself")
            anchor, size = None, sizes[event.anchor]
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = around.pop()
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
        else:
            continue
        if anchor:
            sizes[anchor] = size
        around[-1] = (around[-1][0], around[-1][1] + size)
        if around[-1][1] > _MOST_VALUES:
            raise ValueError(f"expands to more than {_MOST_VALUES:,} values")

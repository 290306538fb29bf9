"""Writes docs/cfg-reference.md: every section and key of a cfg, from the typed sections that read it.

python -m docs.cfg_reference [--check]
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from models.activations import ACTIVATIONS
from models.catalog import SECTIONS
from models.heads.base import NO_LIMIT
from models.layers.base import LayerSection
from utils.cli import EXIT_FAILED, EXIT_OK, run_script, script_parser
from utils.files import write_text
from utils.net_options import NET_AUDIENCES
from utils.options import Options, key_of

OUT = Path(__file__).resolve().parent / "cfg-reference.md"
INTRODUCTION = """# Cfg reference

Written by `python -m docs.cfg_reference` from the classes that read a cfg; do not edit.

A cfg is a list of sections. `[net]` (or `[network]`) is the first one, every other one is a layer, and the order of the
layers is their number, from 0. `python info.py --cfg FILE` lists the keys of a file that have no effect or that nobody knows.

## How a cfg is read

The rules are those of the original's parser; what it crashes on or passes over is an error or a warning here, with file and line.

- Blanks and tabs are dropped, also inside values. A line that begins with `#` or `;` is a comment.
- Numbers end at a `#` or `;` (`steps=100 # later`). A whole number written with decimals is cut off, with a warning.
  Flags are numbers: 0 is off, anything else is on.
- If a key is repeated, its first value counts; if the values differ, a warning says so.
- An unknown key has no effect and is a warning. An unknown section is an error.
- A number out of range, text in the place of a number, and a word that is not in the list are errors.
- Layers are named by number; a negative number counts back from the layer that names it.

*Default* is the value when the key is absent. *Range* is inclusive.
"""
ACTIVATIONS_TEXT = """## Activations

`activation` of any layer is one of: {words}.

An unknown word is `relu`, as in the original, with a warning. `swish` is also known as SiLU.
"""
_KINDS = {int: "whole number", float: "number", bool: "flag", str: "word"}
_HEAD, _IGNORED_HEAD = ("key", "value", "default", "range", "meaning"), ("key without effect", "why")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = script_parser("python -m docs.cfg_reference", __doc__)
    parser.add_argument("--check", action="store_true", help="compare with docs/cfg-reference.md, write nothing")
    text = reference()
    if not parser.parse_args(arguments).check:
        write_text(OUT, text)
        return EXIT_OK
    if OUT.exists() and OUT.read_text(encoding="utf-8") == text:
        return EXIT_OK
    print(f"{OUT}: differs from what python -m docs.cfg_reference writes")
    return EXIT_FAILED


def reference() -> str:
    """The whole page."""
    words = ", ".join(f"`{word}`" for word in ACTIVATIONS)
    parts = [INTRODUCTION, _contents(), *_net(), *_every_layer(), ACTIVATIONS_TEXT.format(words=words), *_layers()]
    return "\n".join(parts)


def _contents() -> str:
    links = ", ".join(f"[`{name}`](#{_first(section).lower()})" for section in SECTIONS for name in section.names)
    return f"## Sections\n\n[`net`](#net), [keys of every layer](#every-layer), [activations](#activations), {links}.\n"


def _net() -> Iterator[str]:
    yield "## net\n"
    for audience in NET_AUDIENCES:
        yield f"{_docstring(audience)}\n"
        yield from _tables(audience, ())


def _every_layer() -> Iterator[str]:
    yield "## Every layer\n\nThese keys can stand in every section but `[net]`.\n"
    yield from _tables(LayerSection, ())


def _layers() -> Iterator[str]:
    shared = LayerSection.keys()
    for section in SECTIONS:
        yield f"## {_first(section)}\n"
        yield f"{_docstring(section) or _module_line(section)}\n"
        if len(section.names) > 1:
            yield f"Also written {', '.join(f'`[{name}]`' for name in section.names[1:])}.\n"
        twin = next((each for each in SECTIONS[: SECTIONS.index(section)] if issubclass(section, each)), None)
        if twin:
            yield f"Keys as in [`[{_first(twin)}]`](#{_first(twin).lower()}), but for those named here.\n"
            shared_here: Collection[str] = [key for key in tuple(section.keys()) if _same(section, twin, key)]
        else:
            shared_here = shared
        tables = list(_tables(section, shared_here))
        yield from tables or ([] if twin else ["No keys of its own.\n"])


def _first(section: type[LayerSection]) -> str:
    return section.names[0]


def _docstring(options: type[Options]) -> str:
    """What the class says of itself, first paragraph; nothing where only the dataclass speaks."""
    text = inspect.cleandoc(options.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    return "" if text.startswith(f"{options.__name__}(") else text


def _module_line(section: type[LayerSection]) -> str:
    """First line of what the layer's file says, with the original's source file."""
    module = inspect.getmodule(section)
    assert module is not None and module.__doc__ is not None
    return module.__doc__.splitlines()[0]


def _same(section: type[Options], other: type[Options], key: str) -> bool:
    mine, theirs = section.keys()[key], other.keys().get(key)
    return theirs is not None and (mine.default, mine.metadata) == (theirs.default, theirs.metadata)


def _tables(options: type[Options], left_out: Collection[str]) -> Iterator[str]:
    """A table of the keys that act, and one of those that do not."""
    hints = get_type_hints(options)
    fields = [item for key, item in options.keys().items() if key not in left_out]
    acting = [_row(item, hints[item.name]) for item in fields if "ignored" not in item.metadata]
    ignored = [(f"`{key_of(item)}`", _cell(item.metadata["ignored"])) for item in fields if "ignored" in item.metadata]
    if acting:
        yield _markdown(_HEAD, acting)
    if ignored:
        yield _markdown(_IGNORED_HEAD, ignored)


def _row(item: dataclasses.Field[Any], hint: Any) -> tuple[str, ...]:
    kind = _kind(hint)
    default = _value(item.default, kind)
    return f"`{key_of(item)}`", kind, default, _range(item.metadata), _cell(item.metadata["doc"])


def _kind(hint: Any) -> str:
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    if kinds and get_origin(hint) is not tuple:
        hint = kinds[0]
    if get_origin(hint) is tuple:
        return f"{_KINDS[get_args(hint)[0]]}s, comma between"
    return _KINDS[hint]


def _value(value: Any, kind: str) -> str:
    if value is None or value == ():
        return "–"
    if value == NO_LIMIT:
        return "no limit"
    if kind == "flag":
        return str(int(value))
    return ", ".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}" if kind == "number" else str(value)


def _range(limits: Mapping[str, Any]) -> str:
    least, most, choices = limits.get("least"), limits.get("most"), limits.get("choices")
    if choices is not None:
        return "[a word](#activations)" if tuple(choices) == tuple(ACTIVATIONS) else ", ".join(choices)
    if least is None:
        return "" if most is None else f"at most {most}"
    return f"at least {least}" if most is None else f"{least} to {most}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(run_script(main))

"""Untrusted JSON and YAML: quickly gives a value or one error, and never executes anything."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from utils.documents import parse_json, parse_yaml
from utils.errors import InputError

BOMB = "\n".join(
    [
        "a: &a [x, x, x]",
        *(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    ]
)

BAD_YAML = {
    "an alias bomb": (BOMB, "expands to more than"),
    "an alias that contains itself": ("a: &a [*a]", "contains itself"),
    "an unknown alias": ("a: *b", "stands for nothing"),
    "nested lists": ("[" * 100_000, "nested deeper"),
    "nested keys": ("? " * 100_000, "nested deeper"),
    "nested mappings": ("{a: " * 5000, "nested deeper"),
    "code": ("!!python/object/apply:os.system ['touch canary']", "a.yaml:1: not valid YAML"),
    "a date that is none": ("a: 2001-99-99", "month must be"),
    "a bool that is none": ("!!bool maybe", "not valid YAML"),
    "a number of digits without end": (f"a: {'9' * 5000}", "not valid YAML"),
    "a timestamp that is none": ("!!timestamp x", "not valid YAML"),
    "a key that is a list": ("[a]: b\n{c: d}: e", "a.yaml:1: not valid YAML"),
    "a tab": ("a:\n\t- b", "a.yaml:2: not valid YAML"),
    "a long text": ("a" * 1_000_001, "expected at most 1,000,000"),
}


@pytest.mark.parametrize(("text", "message"), BAD_YAML.values(), ids=BAD_YAML)
def test_bad_yaml(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("yaml")
    monkeypatch.chdir(tmp_path)
    start = time.process_time()
    with pytest.raises(InputError, match=message) as caught:
        parse_yaml(text, "a.yaml")
    assert str(caught.value).startswith("a.yaml") and time.process_time() - start < 5
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: 1\nb: [x, 2.5, null]", {"a": 1, "b": ["x", 2.5, None]}),
        ("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]", {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}] * 2}),
        ('{"json": [1, true]}', {"json": [1, True]}),
    ],
)
def test_yaml(text: str, value: Any) -> None:
    pytest.importorskip("yaml")
    assert parse_yaml(text, "a.yaml") == value


BAD_JSON = {
    "cut off": ('{\n"a": [1,', "a.json:2: not valid JSON: Expecting value"),
    "nested without end": ("[" * 100_000, "a.json: not valid JSON: maximum recursion"),
    "a number of digits without end": ("9" * 5000, "a.json: not valid JSON: Exceeds the limit"),
    "bytes": (b"\xff\xfe\xff", "a.json: not valid JSON: "),
}


@pytest.mark.parametrize(("text", "message"), BAD_JSON.values(), ids=BAD_JSON)
def test_bad_json(text: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_json(text, "a.json")
    with pytest.raises(InputError, match=r"a.pt: its header is not valid JSON"):
        parse_json(text, "a.pt", "its header")

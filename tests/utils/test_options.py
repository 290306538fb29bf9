"""Typed options from a raw section."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest

from utils import cfg
from utils.errors import CfgError
from utils.options import Options, ignored, option, report_keys, warn_unknown


@dataclass(frozen=True, kw_only=True)
class Example(Options):
    size: int = option(1, least=1, most=100)
    rate: float = option(0.5)
    wide: bool = option(False)
    kind: str = option("a", choices=("a", "b"))
    steps: tuple[int, ...] = option(())
    anchors: tuple[float, ...] = option((0.5,))
    origin: int | None = option(None, key="from")
    speed: int = ignored(2, "has no effect")


def read(text: str) -> Example:
    return Example.from_raw(cfg.parse(f"[x]\n{text}\n", "a.cfg").sections[0])


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("", "size", 1),
        ("size=7", "size", 7),
        ("size=+7#note", "size", 7),
        ("size=7;note", "size", 7),
        ("size=7.0", "size", 7),
        ("size=7.9", "size", 7),
        ("rate=.1", "rate", 0.1),
        ("rate=5.", "rate", 5.0),
        ("rate=1e-3", "rate", 0.001),
        ("rate=-2", "rate", -2.0),
        ("wide=0", "wide", False),
        ("wide=2", "wide", True),
        ("kind=b", "kind", "b"),
        ("steps=1,-2,3", "steps", (1, -2, 3)),
        ("steps=1,2,", "steps", (1, 2)),
        ("steps=1,2#3,4", "steps", (1, 2)),
        ("anchors=10,13, 16.5,30", "anchors", (10.0, 13.0, 16.5, 30.0)),
        ("from=-3", "origin", -3),
        ("size=3\nsize=4", "size", 3),
    ],
)
def test_reads(text: str, name: str, value: object) -> None:
    assert getattr(read(text), name) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size=three", "a.cfg:2: [x] size: cannot read 'three', expected a whole number"),
        ("size=7x", "cannot read '7x'"),
        ("size=0", "size: 0 is out of range, expected 1 to 100"),
        ("size=101", "size: 101 is out of range"),
        ("size=99999999999", "expected a 32-bit whole number"),
        (f"size={'9' * 5000}", "size: a number of 5000 digits is out of range"),
        (f"size={'9' * 5000}.5", "size: a number of 5000 digits is out of range"),
        ("rate=0,001", "rate: cannot read '0,001', expected a number"),
        ("rate=nan", "rate: cannot read 'nan'"),
        ("rate=1e999", "rate: cannot read '1e999'"),
        ("kind=c", "kind: unknown value 'c', expected one of a, b"),
        ("steps=1,,3", "steps: cannot read ''"),
        ("steps=1,x", "steps: cannot read 'x'"),
        ("wide=yes", "wide: cannot read 'yes'"),
    ],
)
def test_refuses(text: str, message: str) -> None:
    with pytest.raises(CfgError) as caught:
        read(text)
    assert message in str(caught.value)


def test_report_and_warnings(caplog: pytest.LogCaptureFixture) -> None:
    raw = cfg.parse("[x]\nsize=1\nspeed=3\nsise=2\nsize=5\n", "a.cfg").sections[0]
    report = report_keys(raw, (Example,))
    assert {kind: [entry.line for entry in entries] for kind, entries in report.items()} == {
        "understood": [2],
        "ignored": [3],
        "unknown": [4],
        "repeated": [5],
    }
    with caplog.at_level(logging.WARNING):
        warn_unknown(raw, (Example,))
    assert "a.cfg:4: [x] sise: unknown key" in caplog.text
    assert "a.cfg:5: [x] size is repeated, the first value 1 (line 2) is used" in caplog.text
    assert len(caplog.records) == 2

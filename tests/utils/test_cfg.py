"""Reading and writing cfg text."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.paths import shared
from utils import cfg
from utils.errors import CfgError, InputError

TEXT = "[net]\nwidth = 32 # not a comment\n; note\n\nheight=16\nwidth=64\n[conv]\r\n filters =\t8\r\n# end"


def test_lexical_rules() -> None:
    net, conv = cfg.parse(TEXT, "a.cfg").sections
    assert [(entry.key, entry.value, entry.line) for entry in net.entries] == [
        ("width", "32#notacomment", 2),
        ("height", "16", 5),
        ("width", "64", 6),
    ]
    first = net.find("width")
    assert first and first.line == 2, "the first of two equal keys counts"
    assert (conv.name, conv.line, conv.entries[0].value) == ("conv", 7, "8")


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        (0, {"height": 8}, TEXT.replace("height=16", "height=8")),
        (0, {"width": 8}, TEXT.replace("width = 32 # not a comment", "width=8")),
        (0, {"batch": 4}, TEXT.replace("width=64\n", "width=64\nbatch=4\n")),
        (1, {"filters": 4}, TEXT.replace(" filters =\t8\r\n", "filters=4\r\n")),
        (1, {"pad": 1}, TEXT.replace("\t8\r\n", "\t8\r\npad=1\r\n")),
    ],
)
def test_editing_changes_one_line(section: int, values: dict[str, object], expected: str) -> None:
    assert cfg.parse(TEXT, "a.cfg").with_values(section, values).text == expected


def test_added_key_at_the_end_of_a_file_without_newline() -> None:
    edited = cfg.parse("[net]\nwidth=1\n[conv]\nsize=1", "a.cfg").with_values(1, {"pad": 1})
    assert edited.text == "[net]\nwidth=1\n[conv]\nsize=1\npad=1"


def test_a_key_without_value_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        net = cfg.parse("[net]\nwidth=\n", "a.cfg").sections[0]
    assert net.find("width") is None
    assert "a.cfg:2: width has no value" in caplog.text


def test_unchanged_published_cfgs_are_written_byte_for_byte(tmp_path) -> None:  # type: ignore[no-untyped-def]
    files = sorted(shared("zoo").rglob("*.cfg"))
    for path in files:
        cfg.read(path).write(tmp_path / "copy.cfg")
        assert (tmp_path / "copy.cfg").read_bytes() == path.read_bytes(), path
    assert len(files) > 100


def test_bytes_that_are_not_utf8_survive(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "latin.cfg"
    path.write_bytes(b"[net]\n# caf\xe9\nwidth=3\r\n")
    cfg.read(path).write(tmp_path / "copy.cfg")
    assert (tmp_path / "copy.cfg").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.cfg: has no sections"),
        ("# only a comment\n", "a.cfg: has no sections"),
        ("width=3\n[net]\n", "a.cfg:1: expected a [section]"),
        ("[net]\nwidth 3\n", "a.cfg:2: expected key=value"),
        ("[net]\n=3\n", "a.cfg:2: expected key=value"),
        ("[net\n", "a.cfg:1: expected [section]"),
        ("[net] # comment\n", "a.cfg:1: expected [section]"),
        ("[]\n", "a.cfg:1: expected [section]"),
        ("<!DOCTYPE html>\n<html>", "a.cfg:1: is an HTML page"),
        ("version https://git-lfs.github.com/spec/v1\n", "a.cfg:1: is a Git LFS pointer"),
        ("[net]\0\0", "a.cfg: is a binary file"),
    ],
)
def test_text_that_is_not_a_cfg(text: str, message: str) -> None:
    with pytest.raises(CfgError) as caught:
        cfg.parse(text, "a.cfg")
    assert message in str(caught.value)


def test_missing_file_names_a_similar_one(tmp_path: Path) -> None:
    (tmp_path / "peleenet-prn3l.cfg").touch()
    with pytest.raises(InputError, match=r"peleenet-prn31.cfg: no such cfg file; did you mean .*peleenet-prn3l.cfg\?"):
        cfg.read(tmp_path / "peleenet-prn31.cfg")
    with pytest.raises(InputError, match=r"yolo.cfg: no such cfg file$"):
        cfg.read(tmp_path / "yolo.cfg")


def test_an_old_name_of_our_own_cfgs_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(cfg.read("cfg/peleenet-prn31.cfg").path).name == "peleenet-prn3l.cfg"

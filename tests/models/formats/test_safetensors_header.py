"""Safetensors files with wrong headers are rejected by our own check, before the library sees them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from models.formats import safetensors
from models.formats.files import load_model, save_model
from models.formats.safetensors import check_header
from models.load import load
from tests.paths import REFERENCE
from utils.errors import InputError

PLAIN = REFERENCE / "cfg" / "conv_basic.cfg"


def lying(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(start: Any, stop: Any, shape: Any = (1,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


LIES = {
    "beyond the end": (lying({"a": tensor(0, 16, [4])}, b"1234"), "tensors of 16 bytes, the file has 4"),
    "bytes left over": (lying({"a": tensor(0, 4)}, b"12345678"), "tensors of 4 bytes, the file has 8"),
    "overlap": (lying({"a": tensor(0, 4), "b": tensor(0, 4)}, b"1234"), "shares bytes"),
    "gap": (lying({"a": tensor(0, 4), "b": tensor(8, 12)}, bytes(12)), "leaves bytes unused"),
    "shape and bytes": (lying({"a": tensor(0, 4, [1000000, 1000000])}, b"1234"), "has shape"),
    "backwards": (lying({"a": tensor(4, 0)}, b"1234"), "has shape"),
    "negative": (lying({"a": tensor(-4, 0)}, b"1234"), "no usable entry for a"),
    "negative shape": (lying({"a": tensor(0, 4, [-1, -1])}, b"1234"), "no usable entry for a"),
    "truth as number": (lying({"a": tensor(False, 4)}, b"1234"), "no usable entry for a"),
    "unknown type": (lying({"a": tensor(0, 4, dtype="F1")}, b"1234"), "no usable entry for a"),
    "type that is no word": (lying({"a": tensor(0, 4, dtype=["F32"])}, b"1234"), "no usable entry for a"),
    "no entry": (lying({"a": 3}, b"1234"), "no usable entry for a"),
    "three offsets": (lying({"a": tensor(0, 4) | {"data_offsets": [0, 2, 4]}}, b"1234"), "no usable entry for a"),
    "a list": (lying([1, 2]), "damaged"),
    "no JSON": (lying(b"{oops"), "its header is not valid JSON"),
    "nested without end": (lying(b"[" * 200_000), "its header is not valid JSON"),
    "a header without end": (struct.pack("<Q", 2**60) + b"{}", "truncated"),
    "a header as long as a disk": (struct.pack("<Q", 2**64 - 1) + b"{}", "truncated"),
    "short": (b"1234", "truncated"),
    "empty": (b"", "truncated"),
}


@pytest.mark.parametrize(("data", "message"), LIES.values(), ids=list(LIES))
def test_wrong_headers(data: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "need", lambda *_: pytest.fail("the library was asked"))
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def test_a_correct_header_of_another_program(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    path = tmp_path / "a.safetensors"
    path.write_bytes(lying({"a": tensor(0, 4)}, b"1234"))
    check_header(path)
    with pytest.raises(InputError, match="does not describe its network"):
        load_model(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such safetensors file"):
        load_model(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        load_model(tmp_path / "b.safetensors")


def test_a_correct_file_truncated_anywhere(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    whole, cut = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_model(load(PLAIN), whole)
    check_header(whole)
    data = whole.read_bytes()
    for part in range(20):
        cut.write_bytes(data[: len(data) * part // 20])
        with pytest.raises(InputError):
            check_header(cut)

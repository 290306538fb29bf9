"""Atomic writing and run folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.errors import InputError, RunError
from utils.files import atomic_write, run_folder, staged, write_text


def test_a_failure_keeps_the_old_file_and_leaves_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(ValueError, match="on purpose"), atomic_write(target) as stream:
        stream.write(b"half")
        raise ValueError("on purpose")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "text")


@pytest.mark.parametrize("kind", [RunError, InputError])
def test_errors_name_the_place_that_the_user_knows(kind: type[Exception], tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    with pytest.raises(kind, match=f"^{path}: is full$"), staged(path) as target:
        raise kind(f"{target}: is full")
    with pytest.raises(kind, match=r"^else$"), staged(path):
        raise kind("else")
    assert list(tmp_path.iterdir()) == []


def test_run_folders_count_up(tmp_path: Path) -> None:
    names = [run_folder(tmp_path / "runs", "exp").name for _ in range(3)]
    assert names == ["exp", "exp2", "exp3"]
    assert run_folder(tmp_path / "runs", "exp", exist_ok=True).name == "exp"
    (tmp_path / "runs" / "taken").write_text("")
    with pytest.raises(InputError, match="is a file"):
        run_folder(tmp_path / "runs", "taken", exist_ok=True)

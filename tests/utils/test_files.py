"""Atomic writing and run folders."""

from __future__ import annotations

import ast
import errno
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import REPOSITORY
from utils.errors import InputError, RunError
from utils.files import atomic_write, latest_run, remove_unfinished, run_folder, staged, write_text


def test_a_failure_keeps_the_old_file_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(ValueError, match="on purpose"), atomic_write(target) as stream:
        stream.write(b"half")
        raise ValueError("on purpose")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.ESTALE, errno.EIO], ids=["quota", "lost mount", "bad disk"])
def test_a_disk_that_fails_while_writing(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault is one error and the old file stays, even if the temporary file can no longer be removed."""
    write_text(tmp_path / "a.txt", "old")

    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        patch.setattr(Path, "unlink", fails)
        with pytest.raises(RunError, match=f"a.txt: cannot be written: {re.escape(os.strerror(number))}"):
            write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "text")


@pytest.mark.parametrize("name", ["", ".", "..", "/", "folder"])
def test_writing_to_a_folder_is_rejected(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=f"^{re.escape(name or '.')}: is a folder, expected a file name"):
        write_text(name, "text")


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


def start_writing(path: Path) -> None:
    with atomic_write(path) as stream:
        stream.write(b"half")
        stream.flush()
        time.sleep(60)


def test_temporary_files_of_killed_processes_are_removed_and_others_stay(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=start_writing, args=(tmp_path / name,)) for name in ("killed", "alive")]
    for writer in writers:
        writer.start()
    while len([path for path in tmp_path.iterdir() if path.stat().st_size]) < 2:
        time.sleep(0.01)
    os.kill(writers[0].pid or 0, signal.SIGKILL)
    writers[0].join()
    remove_unfinished(tmp_path)
    assert [path.name.split(".")[1] for path in tmp_path.iterdir()] == ["alive"]
    writers[1].kill()
    writers[1].join()


# Modules that may write without utils/files.py, and why.
OWN_WRITERS = {
    "data/scenes/folder.py": "in a folder of staged()",
    "models/export/openvino.py": "in a folder of staged()",
    "data/video.py": "an encoder writes; publish() renames",
    "models/published.py": "appends to a .part file, which can be resumed; publish() renames",
    "inference/results.py": "renames results.json.part of an earlier run back",
    "inference/compile_cache.py": "knows a damaged file by its hash",
    "inference/journal.py": "files that grow piece by piece, which detect.py --resume goes on with",
    "darknet_cli/network.py": "appends to bad.list and bad_label.list, as the original does",
    "serving/app.py": "an upload in a temporary folder",
    "serving/decoder.py": "a setting of its process in /proc",
}
ROOMS = (
    "compose",
    "cspyolo",
    "darknet_cli",
    "data",
    "evaluation",
    "inference",
    "models",
    "profiling",
    "serving",
    "training",
    "utils",
)


def writes(path: Path) -> Iterator[str]:
    """Yield the calls in a module that write, rename or copy files directly."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute | ast.Name):
            continue
        method = isinstance(node.func, ast.Attribute)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        constants = [each for argument in node.args for each in ast.walk(argument) if isinstance(each, ast.Constant)]
        texts = [each.value for each in constants if isinstance(each.value, str)]
        if (
            method
            and name
            in ("write_text", "write_bytes", "rename", "imwrite", "VideoWriter", "copyfile", "copytree", "tofile")
        ) or (method and name == "replace" and len(node.args) == 1 and not node.keywords and not texts):
            yield name
        if name in ("open", "fdopen") and any(
            set(text) <= set("rwxab+t") and set(text) & set("wxa+") for text in texts
        ):
            yield f"{name} {texts[-1]}"


def test_every_module_writes_through_utils_files() -> None:
    paths = [path for room in ROOMS for path in (REPOSITORY / room).rglob("*.py")] + list(REPOSITORY.glob("*.py"))
    found = {str(path.relative_to(REPOSITORY)): list(writes(path)) for path in paths if path.name != "setup.py"}
    found.pop("utils/files.py")
    assert {name for name, calls in found.items() if calls} == set(OWN_WRITERS)


def test_latest_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run in "):
        latest_run(tmp_path, "a.txt", "run")
    for number, name in enumerate(("x", "z", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").touch()
        os.utime(tmp_path / name / "a.txt", (100 - abs(number - 1), 100 - abs(number - 1)))
    assert latest_run(str(tmp_path), "a.txt", "run") == tmp_path / "z"


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, "\N{GRINNING FACE}" * 63])
def test_names_as_long_as_the_file_system_allows(name: str, tmp_path: Path) -> None:
    write_text(tmp_path / name, "text")
    with staged(tmp_path / name) as path:
        path.write_text("other")
    assert (tmp_path / name).read_text() == "other"

"""What a power loss at any moment leaves of the files that utils/files.py writes; see benchmarks/power_loss.py."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from benchmarks.power_loss import Disk, Found, examine, record
from tests.paths import REPOSITORY
from utils import files

WRITERS = {
    "text": 'write_text("new/a.txt", "new"); write_text("a.txt", "new")',
    "many": '[write_text(f"{i}.txt", "new", durable=False) for i in range(3)]; sync_folder(Path())',
    "pair": 'with staged("m.xml") as target:\n    target.write_text("new"); target.with_suffix(".bin").write_text("new")',
    "folder": 'with staged("set") as target:\n    target.mkdir(); (target / "1").write_text("1"); (target / "2").write_text("2")',
    "publish": 'Path(".a.part").write_text("new"); publish(Path(".a.part"), Path("a.txt"))',
    "failed": "try:\n    with atomic_write('a.txt') as stream:\n        stream.write(b'new'); raise OSError\nexcept RunError: pass",
    "run": 'run_folder("runs/train", "exp"); write_text("runs/train/exp/a.txt", "new")',
    # faulty writers, which the recording must detect
    "in place": 'Path("a.txt").write_text("new")',
    "no sync": 'Path(".a").write_text("new"); Path(".a").replace("a.txt")',
    "no folder sync": 'write_text("a.txt", "new", durable=False)',
    "pair in disorder": '[write_text(name, "new") for name in ("m.xml", "m.bin")]',
}
FOUND = {
    "in place": ("a.txt: 0 bytes", "a.txt: 1 bytes", "a.txt: 3 bytes"),
    "no sync": ("a.txt: 0 bytes", "a.txt: 1 bytes", "a.txt: 3 bytes"),
    "pair in disorder": ("m.xml without the files that belong to it",),
}
LATE = {"in place": ("a.txt",), "no sync": ("a.txt",), "no folder sync": ("a.txt",)}


def traced(folder: Path, program: str) -> Found:
    """What a power loss at any moment of a program can leave of three old files."""
    for name in ("a.txt", "m.xml", "m.bin"):
        (folder / name).write_text("old")
    disk = Disk(folder)
    head = (
        f"import os, sys; sys.path.insert(0, {str(REPOSITORY)!r}); from utils.files import *; os.chdir({str(folder)!r})"
    )
    calls = record([sys.executable, "-c", f"{head}\n{program}"], folder.parent / "strace.log")
    return examine(calls, disk, (("m.xml", "m.bin"),))


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("writer", WRITERS)
def test_every_file_is_old_or_new_or_absent(writer: str, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    try:
        found = traced(tmp_path / "disk", WRITERS[writer])
    except RuntimeError as error:
        if "ptrace" in str(error):
            pytest.skip("strace is not allowed here")
        raise
    assert found.calls and tuple(sorted(found.bad)) == FOUND.get(writer, ())
    assert found.late == LATE.get(writer, ())


def test_files_are_synced_before_and_folders_after_they_are_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = files.os.fsync, Path.replace

    def noted_fsync(handle: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{handle}').resolve().suffix or 'folder'}")
        fsync(handle)

    def noted_replace(self: Path, target: Path) -> Path:
        done.append(f"rename to {target.name}")
        return replace(self, target)

    monkeypatch.setattr(files.os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    files.write_text(tmp_path / "a", "text")
    with files.staged(tmp_path / "b.xml") as target:
        target.write_text("1")
        target.with_suffix(".bin").write_text("2")
    single = ["sync .part", "rename to a", "sync folder"]
    pair = ["sync .bin", "sync .xml", "rename to b.bin", "sync folder", "rename to b.xml", "sync folder"]
    assert done == single + pair

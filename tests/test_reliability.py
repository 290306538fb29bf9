"""What the scripts do when the machine fails, and that they otherwise always produce the same bytes.

Faults are simulated in forked processes, where a full or read-only disk is a separate file system. docs/reliability.md describes
the long campaigns.
"""

from __future__ import annotations

import ast
import codecs
import ctypes
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

import convert
import detect
import export
import train
from benchmarks.common import Usage
from benchmarks.kills import COMMANDS, fork, inputs, prepare, tree
from benchmarks.soak import report, sample
from data.video import readable_frames
from tests.paths import REPOSITORY
from training.checkpoint import load_checkpoint
from training.run import Run
from utils.cli import EXIT_FAILED, EXIT_OK, run_script

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's processes and mounts")
NEW_MOUNTS, NEW_USER, PRIVATE, READ_ONLY, REMOUNT, DETACH = 0x20000, 0x10000000, 1 << 18 | 1 << 14, 1, 32, 2
LIBC = ctypes.CDLL(None, use_errno=True)
NO_MOUNTS = 77


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cv2.setNumThreads(1)
    inputs(tmp_path)
    return tmp_path


def ended(folder: Path, work: Callable[[], int]) -> int:
    """Run `work` in a forked process; returns its exit code."""
    code = os.waitstatus_to_exitcode(os.waitpid(fork(folder / "log", work), 0)[1])
    if code == NO_MOUNTS:
        pytest.skip("mounts are not allowed here")
    return code


def said(folder: Path) -> str:
    return (folder / "log").read_text()


def mounted(place: Path, kilobytes: int) -> None:
    """Mount a file system of that size at `place`, visible to this process only."""
    place.mkdir()
    if LIBC.unshare(NEW_MOUNTS) and LIBC.unshare(NEW_MOUNTS | NEW_USER):
        os._exit(NO_MOUNTS)
    LIBC.mount(None, b"/", None, PRIVATE, None)
    if LIBC.mount(b"none", bytes(place), b"tmpfs", 0, f"size={kilobytes}k".encode()):
        os._exit(NO_MOUNTS)


def full(place: Path) -> None:
    mounted(place, 64)
    with (place / "filler").open("wb") as stream:
        stream.write(bytes(60 * 1024))


def read_only(place: Path) -> None:
    mounted(place, 1024)
    LIBC.mount(b"none", bytes(place), b"tmpfs", REMOUNT | READ_ONLY, None)


def quota(place: Path) -> None:
    place.mkdir()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


def forbidden(place: Path) -> None:
    """Make a folder that this process may not write to; root becomes another user."""
    place.mkdir(mode=0o555)
    codecs.lookup("utf-8-sig")  # the other user cannot import it if Python is in a home folder
    if os.geteuid() == 0:
        for each in (place, *place.parents)[:5]:  # pytest's own folders, which are private
            if not each.stat().st_mode & 0o001:
                each.chmod(0o755)
        os.setgroups([])
        os.setegid(65534)
        os.seteuid(65534)


FAULTS = {
    full: "No space left on device",
    read_only: "Read-only file system",
    quota: "File too large",
    forbidden: "Permission denied",
}


def conversion(folder: Path) -> int:
    model = ["--cfg", f"{folder}/my.cfg", "--weights", f"{folder}/0.weights"]
    return run_script(convert.main, ["weights", *model, "--out", f"{folder}/place/a.pt"])


def exporting(folder: Path) -> int:
    model = ["--cfg", f"{folder}/my.cfg", "--weights", f"{folder}/0.weights"]
    return run_script(export.main, [*model, "--include", "torchscript", "--no-check", "--out", f"{folder}/place/a"])


def detection(folder: Path) -> int:
    model = ["--cfg", f"{folder}/my.cfg", "--weights", f"{folder}/0.weights", "--names", f"{folder}/my.names"]
    results = ["--save-json", "--fourcc", "mp4v", "--project", f"{folder}/place"]
    return run_script(detect.main, [*model, "--source", f"{folder}/clip0.mp4", "--conf-thres", "0.01", *results])


@pytest.mark.parametrize("command", [conversion, exporting, detection])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_that_cannot_be_written(
    fault: Callable[[Path], None], command: Callable[[Path], int], folder: Path
) -> None:
    """A one-line message reports it, and no file is broken: there is none, or a video of the frames so far."""

    def work() -> int:
        fault(folder / "place")
        code = command(folder)
        left = [path for path in (folder / "place").rglob("*") if path.is_file() and path.name != "filler"]
        print("broken:", [path.name for path in left if path.suffix != ".mp4" or not readable_frames(path)])
        return code

    assert ended(folder, work) == EXIT_FAILED, said(folder)
    errors = [line for line in said(folder).splitlines() if line.startswith("failed: ")]
    video_on_full_disk = command is detection and "is the disk full?" in errors[0]
    assert len(errors) == 1 and (FAULTS[fault] in errors[0] or video_on_full_disk), errors
    assert "Traceback" not in said(folder) and "broken: []" in said(folder), said(folder)


def test_a_run_folder_that_disappears_is_made_again(folder: Path) -> None:
    """As when a network mount disappears: everything written afterwards is complete."""

    def work() -> int:
        mounted(folder / "runs", 100_000)
        average = Run._average

        def lose(run: Run, update: object) -> None:
            average(run, update)  # type: ignore[arg-type]
            if run.trainer.iteration == 5:
                LIBC.umount2(bytes(folder / "runs"), DETACH)

        Run._average = lose  # type: ignore[assignment, method-assign]
        flags = ["--project", f"{folder}/runs", "--no-val", "--no-plots", "--workers", "0"]
        return run_script(train.main, ["--cfg", f"{folder}/my.cfg", "--data", f"{folder}/my.data", *flags])

    assert ended(folder, work) == EXIT_OK, said(folder)
    assert load_checkpoint(folder / "runs" / "exp" / "weights" / "last.pt").iteration == 10


def test_out_of_memory_is_one_line(folder: Path) -> None:
    def work() -> int:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
        model = ["--cfg", f"{folder}/my.cfg", "--weights", f"{folder}/0.weights", "--names", f"{folder}/my.names"]
        flags = ["--img-size", "8192", "--no-save", "--source", f"{folder}/0.png", "--backend", "torch"]
        return run_script(detect.main, [*model, *flags])

    assert ended(folder, work) == EXIT_FAILED, said(folder)
    assert "failed: out of memory" in said(folder) and "Traceback" not in said(folder)


@pytest.mark.parametrize("module", ["data", "evaluation", "inference", "models", "serving", "training", "utils"])
def test_no_interval_depends_on_the_time_of_day(module: str) -> None:
    """Clocks jump; time.monotonic and time.perf_counter do not."""
    for path in (REPOSITORY / module).rglob("*.py"):
        calls = (node.func for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))
        names = {ast.unparse(call) for call in calls if isinstance(call, ast.Attribute)}
        assert not names & {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow"}, path


# Kills and long runs, shortened


@pytest.mark.slow
def test_killed_commands_leave_whole_files() -> None:
    """Runs in a separate process because it forks, which can deadlock with engine threads started by other tests."""
    chosen = ["evaluation", "detection", "conversion", "data sets", "image cache"]
    command = [
        sys.executable,
        str(REPOSITORY / "benchmarks" / "kills.py"),
        "--kills",
        "20",
        "--seed",
        "1",
        "--only",
        *chosen,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"| {name} | 4 |" in done.stdout for name in chosen), done.stdout


def test_the_soak_program_notices_growth() -> None:
    flat = [Usage(100 + 0.001 * number, 7, 3) for number in range(100)]
    assert report(flat)
    assert not report([Usage(100 + 0.05 * number, 7, 3) for number in range(100)])
    assert not report([*flat[:90], *[Usage(100, 8, 3)] * 20])
    own = sample(os.getpid())
    assert own is not None and own.memory > 10 and own.files > 2 and own.threads > 0


# Determinism


def trained(folder: Path, name: str, *flags: str) -> dict[str, bytes]:
    """Weights, and results.csv without the speed column, of a training with mosaic, dropout and multi-scale."""

    def work() -> int:
        given = ["--cfg", f"{folder}/my.cfg", "--data", f"{folder}/my.data", "--project", str(folder), "--name", name]
        return run_script(train.main, [*given, "--iterations", "14", "--eval-period", "7", "--no-plots", *flags])

    assert ended(folder, work) == EXIT_OK, said(folder)
    found = {path.name: path.read_bytes() for path in (folder / name / "weights").glob("*.weights")}
    rows = [line.split(",") for line in (folder / name / "results.csv").read_text().splitlines()]
    speed = rows[0].index("images_per_second")
    return found | {"results.csv": "\n".join(",".join(row[:speed] + row[speed + 1 :]) for row in rows).encode()}


@pytest.mark.slow
def test_training_gives_the_same_bytes_on_every_worker_count(tmp_path: Path) -> None:
    prepare(tmp_path, 20, 5, filters=8)
    first, *others = (trained(tmp_path, f"w{workers}", "--workers", str(workers)) for workers in (0, 1, 2, 4))
    assert len(first) >= 3 and b"mAP" in first["results.csv"]
    assert all(other == first for other in others)
    assert trained(tmp_path, "seed", "--seed", "1", "--workers", "0") != first


@pytest.mark.slow
def test_evaluation_and_detection_give_the_same_bytes(folder: Path) -> None:
    """Evaluation gives them with every worker count, detection in every run; times in metrics.json are ignored."""
    for name, runs in (("evaluation", ("1", "2", "4")), ("detection", ("", ""))):
        found = []
        for workers in runs:
            shutil.rmtree(folder / "out", ignore_errors=True)
            extra = ["--workers", workers] if workers else []
            assert ended(folder, lambda name=name, extra=extra: COMMANDS[name].run(folder, 1, *extra)) == EXIT_OK  # type: ignore[misc]
            found.append(tree(folder / "out"))
        assert len(found[0]) > 1 and all(other == found[0] for other in found), name

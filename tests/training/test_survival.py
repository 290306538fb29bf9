"""What training survives: kill -9, a full disk, a folder that cannot be written, bad checkpoints."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tqdm import tqdm

import train
from benchmarks.kills import campaign, prepare
from tests.paths import REPOSITORY
from training.checkpoint import Checkpoint, load_checkpoint
from training.loop import Update
from training.run import Run
from utils.cli import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, run_script

STOPPED = """
import os, signal, sys
import torch, train
from training.run import Run
from utils.cli import run_script
torch.set_num_threads(1)
number, iteration, average = int(sys.argv[1]), int(sys.argv[2]), Run._average
def stop(self, update):
    average(self, update)
    if update.iteration == iteration:
        os.kill(os.getpid(), number)
Run._average = stop
sys.exit(run_script(train.main, sys.argv[3:]))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def flags(*more: str) -> list[str]:
    return ["--cfg", "my.cfg", "--data", "my.data", "--workers", "0", "--no-val", "--no-plots", *more]


def last(name: str = "exp") -> Path:
    return Path("runs/train") / name / "weights" / "last.pt"


def same(first: Any, second: Any) -> bool:
    """Whether two states are bit-identical."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        return (
            isinstance(second, dict) and list(first) == list(second) and all(same(first[k], second[k]) for k in first)
        )
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(same(*pair) for pair in zip(first, second, strict=True))
    return first == second


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit(folder: Path) -> None:
    """With mosaic, dropout and multi-scale; max_batches is larger, because the last hundred iterations use a single size."""
    prepare(folder, 200, 12, filters=8)

    def begin(number: int, iteration: int, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", STOPPED, str(number), str(iteration), *arguments]
        return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, stderr=subprocess.DEVNULL)

    whole = begin(signal.SIGTERM, 30, *flags("--name", "whole"))
    parts = begin(signal.SIGKILL, 17, *flags("--name", "parts"))
    assert parts.wait() == -signal.SIGKILL
    assert load_checkpoint(last("parts")).iteration == 12
    parts = begin(signal.SIGTERM, 30, "--resume", str(last("parts")), "--workers", "0")
    assert (whole.wait(), parts.wait()) == (EXIT_INTERRUPTED, EXIT_INTERRUPTED)
    first, second = (load_checkpoint(last(name)) for name in ("whole", "parts"))
    assert first.iteration == second.iteration == 30
    for name in ("model", "optimizer", "random"):
        assert same(getattr(first, name), getattr(second, name)), name
    sizes = {row["width"] for row in first.history["rows"]}
    assert len(sizes) > 1
    assert [row["loss"] for row in first.history["rows"]] == [row["loss"] for row in second.history["rows"]]


@pytest.mark.slow
def test_random_kills(folder: Path) -> None:
    outcome = campaign(folder, kills=5, every=2)
    assert (outcome.kills, outcome.readable, outcome.same) == (5, 5, True)
    assert outcome.most_lost <= 2
    assert not list(folder.rglob("*.part"))


def train_until_the_disk_is_full(sender: Path) -> None:
    tqdm.set_lock(threading.RLock())  # the existing lock may be held by a thread that was not forked
    average = Run._average

    def limit(self: Run, update: Update) -> None:
        average(self, update)
        if update.iteration == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    Run._average = limit  # type: ignore[method-assign]
    reader, writer = os.pipe()  # a pipe is not subject to the size limit
    sys.stdout = sys.stderr = os.fdopen(writer, "w", buffering=1)
    code = run_script(train.main, flags())
    said = os.read(reader, 60_000).decode()
    wanted = "failed: " in said and "last.pt: cannot be written: File too large" in said
    os._exit(code if wanted else 99)


def test_a_disk_that_fills_up_ends_the_run_and_keeps_the_checkpoint(folder: Path) -> None:
    prepare(folder, 10, 2, filters=8)
    process = multiprocessing.get_context("fork").Process(target=train_until_the_disk_is_full, args=(folder,))
    process.start()
    process.join(300)
    assert process.exitcode == EXIT_FAILED
    assert load_checkpoint(last()).iteration == 2
    assert not list(folder.rglob("*.part"))
    assert run_script(train.main, ["--resume", str(last()), "--workers", "0"]) == EXIT_OK


def test_a_folder_that_cannot_be_written_is_one_clear_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(folder, 4, 2, filters=8)
    Path("taken").write_text("")
    assert run_script(train.main, flags("--project", "taken/runs")) == EXIT_FAILED
    assert "failed: taken/runs/exp: cannot be created" in capsys.readouterr().err


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harm",)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def harmful(path: Path) -> None:
    content = {name: getattr(load_checkpoint(path), name) for name in Checkpoint.__dataclass_fields__}
    torch.save(content | {"names": Harmful(), "format": "cspyolo checkpoint 1"}, path)


def of_another_network(path: Path) -> None:
    """Make a checkpoint whose cfg does not match its tensors."""
    kept = load_checkpoint(path)
    content = {name: getattr(kept, name) for name in Checkpoint.__dataclass_fields__}
    other = kept.cfg.replace("filters=8", "filters=9")
    torch.save(content | {"cfg": other, "iteration": 1, "format": "cspyolo checkpoint 1"}, path)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (cut_short, "truncated or damaged"),
        (harmful, "tensors and plain values only"),
        (of_another_network, "does not fit"),
        (lambda path: path.write_text("no checkpoint"), "is not a checkpoint"),
        (lambda path: path.unlink(), "cannot be read"),
    ],
)
def test_a_bad_checkpoint_is_refused(
    folder: Path, spoil: object, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(folder, 4, 2, filters=8)
    assert run_script(train.main, flags("--set", "max_batches=2")) == EXIT_OK
    spoil(last())
    assert run_script(train.main, ["--resume", str(last()), "--workers", "0"]) == EXIT_BAD_INPUT
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and expected in errors[0] and "last.pt" in errors[0]
    assert not Path("harm").exists()

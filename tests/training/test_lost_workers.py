"""What a training does when its data loading workers die, or its images disappear."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import train
from tests.small_set import YOLO, write_set
from training.checkpoint import Saver, load_checkpoint
from training.loop import Update
from utils.cli import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, run_script

CFG = """[net]
batch=4
subdivisions=2
width=32
height=32
channels=3
learning_rate=0.001
max_batches=8
policy=constant

[convolutional]
filters=14
size=8
stride=8
activation=linear
"""
AT = 3


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a cfg and six images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    write_set(tmp_path, ("cat", "dog"), lambda number: f"{number % 2} .5 .5 .4 .4\n")
    Path("my.cfg").write_text(CFG + YOLO)
    return tmp_path


def train_and(event: Callable[[], None], monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    """Exit code of a training during whose third iteration `event` is called."""
    before = Saver.__call__

    def hook(self: Saver, update: Update) -> None:
        before(self, update)
        if update.iteration == AT:
            event()

    monkeypatch.setattr(Saver, "__call__", hook)
    command = ["--cfg", "my.cfg", "--data", "my.data", "--no-plots", "--no-val", "--device", "cpu"]
    return run_script(train.main, [*command, *flags])


def saved() -> int:
    return load_checkpoint(Path("runs/train/exp/weights/last.pt")).iteration


@pytest.mark.skipif(sys.platform == "win32", reason="processes are ended otherwise there")
def test_a_worker_that_is_killed_ends_the_run_with_its_state_saved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill() -> None:
        for worker in multiprocessing.active_children():
            os.kill(worker.pid or 0, signal.SIGKILL)

    assert train_and(kill, monkeypatch, "--workers", "1", "--iterations", "100000") == EXIT_FAILED
    said = capsys.readouterr().err
    assert "failed: a data loading worker died" in said and "--workers" in said
    assert saved() >= AT


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_reaches_the_workers_too_is_an_interruption(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    started = list[multiprocessing.process.BaseProcess]()

    def stop() -> None:
        started.extend(multiprocessing.active_children())
        for worker in started:
            os.kill(worker.pid or 0, number)
        signal.raise_signal(number)

    assert train_and(stop, monkeypatch, "--workers", "2") == EXIT_INTERRUPTED
    assert saved() == AT
    assert len(started) == 2 and not any(worker.is_alive() for worker in started)


def test_deleted_images_are_skipped_and_listed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def delete() -> None:
        for number in range(3):
            Path(f"{number}.png").unlink()

    assert train_and(delete, monkeypatch, "--workers", "0", "--iterations", "20") == EXIT_OK
    listed = Path("runs/train/exp/problems.txt").read_text()
    assert [f"{number}.png: no such image" in listed for number in range(6)] == [True] * 3 + [False] * 3
    assert "3 images or labels could not be used" in caplog.text and "problems.txt" in caplog.text


def test_when_no_image_is_left_the_state_is_saved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def delete() -> None:
        for path in Path().glob("*.png"):
            path.unlink()

    assert train_and(delete, monkeypatch, "--workers", "0") == EXIT_FAILED
    assert "no training image can be" in capsys.readouterr().err
    assert saved() == AT

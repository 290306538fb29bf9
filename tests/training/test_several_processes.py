"""train.py in two processes, connected as by torchrun: same numbers as one process, and failures that end both."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tqdm import tqdm

import train
from tests.small_set import YOLO, two_boxes, write_set
from training.checkpoint import load_checkpoint
from training.loop import Update
from training.run import Run
from utils.cli import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, run_script

CFG = (
    """[net]
batch=8
subdivisions=2
width=32
height=32
channels=3
learning_rate=0.01
burn_in=2
max_batches=10
mosaic=1

[convolutional]
{keys}
filters=6
size=3
stride=2
pad=1
activation=leaky
{layer}
[convolutional]
filters=14
size=1
stride=4
activation=linear
"""
    + YOLO
)
PLAIN, NORMALISED, CROSS = "", "batch_normalize=1", "batch_normalize=2"
DROPOUT = "\n[dropout]\nprobability=.3\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path, ("cat", "dog"), lambda number: two_boxes(number, 2))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def arguments(*flags: str) -> list[str]:
    return ["--cfg", "my.cfg", "--data", "my.data", "--workers", "0", "--no-plots", *flags]


def spoilt(losses: Callable[..., Any]) -> Callable[..., Any]:
    def make(*arguments: Any) -> Any:
        return [dataclasses.replace(loss, value=loss.value * float("nan")) for loss in losses(*arguments)]

    return make


def one(rank: int, count: int, port: int, flags: list[str], fault: str) -> None:
    """One of the processes; fault: what happens to the second after iteration 4, or "elsewhere": the first has another folder."""
    if fault == "elsewhere" and rank == 0:
        os.chdir("other")
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    tqdm.set_lock(
        threading.RLock()
    )  # forks share the default lock: if one is killed while holding it, the other would block
    before = Run._average

    def average(self: Run, update: Update) -> None:
        before(self, update)
        if rank == 1 and update.iteration == 4:
            if fault == "stop":
                signal.raise_signal(signal.SIGTERM)
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "nan":
                self.trainer.network.losses = spoilt(self.trainer.network.losses)  # type: ignore[method-assign]

    Run._average = average  # type: ignore[method-assign]
    with Path(f"said{rank}.txt").open("w", buffering=1) as said:
        sys.stdout = sys.stderr = said
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=said, force=True)
        code = run_script(train.main, flags)
    os._exit(code)


def together(flags: list[str], fault: str = "", count: int = 2) -> list[int | None]:
    """Run train.py in several processes; returns their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    group = [context.Process(target=one, args=(rank, count, port, flags, fault)) for rank in range(count)]
    for process in group:
        process.start()
    for process in group:
        process.join(300)
        if process.is_alive():
            process.kill()
    return [process.exitcode for process in group]


def weights(name: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.fromfile(Path("runs/train") / name / "weights" / "my_final.weights", np.float32, offset=20)


@pytest.mark.parametrize(
    ("keys", "flags"),
    [(PLAIN, ()), (NORMALISED, ("--sync-bn",)), (CROSS, ("--sync-bn",)), (NORMALISED, ("--sync-bn", "--adamw"))],
)
def test_two_processes_train_as_one(keys: str, flags: tuple[str, ...]) -> None:
    Path("my.cfg").write_text(CFG.format(keys=keys, layer=""))
    assert run_script(train.main, arguments("--name", "one", "--no-val", *flags)) == EXIT_OK
    assert together(arguments("--name", "two", "--no-val", *flags)) == [EXIT_OK, EXIT_OK]
    np.testing.assert_allclose(weights("two"), weights("one"), rtol=0, atol=1e-5)
    first, second = (load_checkpoint(f"runs/train/{name}/weights/last.pt") for name in ("one", "two"))
    assert second.seen == first.seen == 80
    losses = [[row["loss"] for row in state.history["rows"]] for state in (first, second)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_only_the_first_process_writes_and_logs() -> None:
    Path("my.cfg").write_text(CFG.format(keys=NORMALISED, layer=""))
    assert together(arguments("--sync-bn")) == [EXIT_OK, EXIT_OK]
    assert [path.name for path in Path("runs/train").iterdir()] == ["exp"]
    assert "mAP" in Path("said0.txt").read_text()
    assert Path("said1.txt").read_text() == ""


def test_a_signal_to_one_process_stops_both_and_they_resume_bit_for_bit() -> None:
    Path("my.cfg").write_text(CFG.format(keys=NORMALISED, layer=DROPOUT))
    assert together(arguments("--name", "whole", "--no-val")) == [EXIT_OK, EXIT_OK]
    assert together(arguments("--name", "parts", "--no-val"), "stop") == [EXIT_INTERRUPTED, EXIT_INTERRUPTED]
    last = Path("runs/train/parts/weights/last.pt")
    assert load_checkpoint(last).iteration == 4
    assert together(["--resume", str(last), "--workers", "0"]) == [EXIT_OK, EXIT_OK]
    assert (weights("parts") == weights("whole")).all()


def test_when_one_process_dies_the_other_fails_and_the_checkpoint_is_kept() -> None:
    Path("my.cfg").write_text(CFG.format(keys=NORMALISED, layer=""))
    Path("my.data").write_text(Path("my.data").read_text() + "savelast=3\n")
    assert together(arguments("--no-val", "--sync-bn"), "kill") == [EXIT_FAILED, -signal.SIGKILL]
    assert "another process died" in Path("said0.txt").read_text()
    assert load_checkpoint("runs/train/exp/weights/last.pt").iteration == 3


def test_a_loss_that_is_not_finite_in_one_process_ends_both() -> None:
    Path("my.cfg").write_text(CFG.format(keys=NORMALISED, layer=""))
    assert together(arguments("--no-val", "--sync-bn"), "nan") == [EXIT_FAILED, EXIT_FAILED]
    assert "the loss is not finite: iteration 5" in Path("said1.txt").read_text()
    assert "the loss of another process is not finite" in Path("said0.txt").read_text()


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    Path("my.cfg").write_text(CFG.format(keys=PLAIN, layer="").replace("subdivisions=2", "subdivisions=8"))
    assert together(arguments("--no-val")) == [EXIT_BAD_INPUT, EXIT_BAD_INPUT]
    assert "expected a multiple of 2" in Path("said0.txt").read_text()


def test_resume_auto_starts_continues_and_ends_a_run() -> None:
    Path("my.cfg").write_text(CFG.format(keys=NORMALISED, layer=DROPOUT))
    flags = arguments("--name", "parts", "--no-val", "--resume", "auto")
    assert together(arguments("--name", "whole", "--no-val")) == [EXIT_OK, EXIT_OK]
    assert together(flags, "stop") == [EXIT_INTERRUPTED, EXIT_INTERRUPTED]
    assert together(flags) == [EXIT_OK, EXIT_OK]
    assert "resuming from iteration 4" in Path("said0.txt").read_text()
    assert (weights("parts") == weights("whole")).all()
    assert together(flags) == [EXIT_OK, EXIT_OK]
    assert "the run is complete at iteration 10" in Path("said0.txt").read_text()
    assert [path.name for path in sorted(Path("runs/train").iterdir())] == ["parts", "whole"]


def test_a_checkpoint_on_another_machine_is_sent_to_the_main_process(tmp_path: Path) -> None:
    """The main process runs in a folder without the checkpoint, as after a restart with different ranks."""
    Path("my.cfg").write_text(CFG.format(keys=NORMALISED, layer=""))
    flags = arguments("--name", "exp", "--no-val", "--resume", "auto", "--project", "runs/train")
    assert together(flags, "stop") == [EXIT_INTERRUPTED, EXIT_INTERRUPTED]
    empty = tmp_path / "other"
    empty.mkdir()
    write_set(empty, ("cat", "dog"), lambda number: two_boxes(number, 2))
    (empty / "my.cfg").write_text(Path("my.cfg").read_text())
    assert together(flags, "elsewhere") == [EXIT_OK, EXIT_OK]
    assert "resuming from iteration 4" in (empty / "said0.txt").read_text()
    state = load_checkpoint(empty / "runs/train/exp/weights/last.pt")
    assert (state.iteration, (empty / "runs/train/exp/my.cfg").exists()) == (10, True)

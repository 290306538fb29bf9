"""Kill a training at random moments, many times, and resume it each time.

After every kill last.pt must be readable and no older than the interval at which it is saved. The run must end with the same
weights, bit for bit, as one that was never killed. The network is tiny, with mosaic, multi-scale training and dropout; an
iteration takes milliseconds, so that many of the kills hit a write.

  python benchmarks/kills.py --kills 200
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import signal
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import train
from training.checkpoint import Checkpoint, load_checkpoint
from training.loop import Update
from training.run import Run
from utils.cli import EXIT_OK, above_zero, run_script, whole

CFG = """[net]
batch=2
subdivisions=1
width=32
height=32
channels=3
learning_rate=0.001
max_batches={length}
mosaic=1

[convolutional]
batch_normalize=1
filters={filters}
size=3
stride=4
pad=1
activation=leaky

[dropout]
probability=.3

[convolutional]
filters=14
size=1
stride=8
activation=linear

[yolo]
mask=0,1
anchors=8,8, 16,16
classes=2
num=2
random=1
"""
MAX_ITERATIONS = 6  # of a run before it is killed


@dataclass
class Outcome:
    """every: iterations between checkpoints. kills: number of kills. readable: those after which last.pt was readable, or not due
    yet. most_lost: most iterations that one kill cost. in_write: kills that left a temporary file. in_start: kills before the
    first iteration. same: whether the final weights are those of a run without kills."""

    every: int
    kills: int = 0
    readable: int = 0
    most_lost: int = 0
    in_write: int = 0
    in_start: int = 0
    iterations: int = 0
    seconds: float = 0.0
    same: bool = False

    def text(self) -> str:
        rows = [
            ("kills", f"{self.kills}"),
            ("last.pt readable", f"{self.readable}"),
            ("most iterations lost", f"{self.most_lost} (saved every {self.every})"),
            ("kills during a write", f"{self.in_write}"),
            ("kills before the first iteration", f"{self.in_start}"),
            ("iterations of the run", f"{self.iterations}"),
            ("same weights as without kills", "yes" if self.same else "NO"),
            ("seconds", f"{self.seconds:.0f}"),
        ]
        return "\n".join(["| what | result |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


class Counter:
    """A number that a process and its children share."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    @property
    def value(self) -> int:
        return int(struct.unpack_from("q", self._memory)[0])

    @value.setter
    def value(self, number: int) -> None:
        struct.pack_into("q", self._memory, 0, number)


def prepare(folder: Path, length: int, every: int, filters: int = 64) -> None:
    """Four small images, their labels and a cfg."""
    rng = np.random.default_rng(0)
    for number in range(4):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 255, (40, 40, 3), np.uint8))
        (folder / f"{number}.txt").write_text(f"{number % 2} 0.5 0.5 0.4 0.5\n")
    (folder / "list.txt").write_text("".join(f"{folder}/{number}.png\n" for number in range(4)))
    (folder / "my.names").write_text("a\nb\n")
    data = f"classes=2\ntrain={folder}/list.txt\nvalid={folder}/list.txt\nnames={folder}/my.names\nsavelast={every}\n"
    (folder / "my.data").write_text(data)
    (folder / "my.cfg").write_text(CFG.format(length=length, filters=filters))


def start(folder: Path, name: str, counter: Counter) -> int:
    """Train in a child process, resuming from last.pt if it exists; returns the process id."""
    last = folder / name / "weights" / "last.pt"
    begin = ["--cfg", f"{folder}/my.cfg", "--data", f"{folder}/my.data", "--project", str(folder), "--name", name]
    flags = ["--resume", str(last)] if last.exists() else [*begin, "--exist-ok", "--no-val", "--no-plots"]
    child = os.fork()
    if child:
        return child
    with (folder / f"{name}.log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    tqdm.set_lock(
        threading.RLock()
    )  # the default lock is shared by forks: a kill while it is held would block the others
    torch.set_num_threads(1)
    Run._average = counted(Run._average, counter)  # type: ignore[method-assign, assignment]
    os._exit(run_script(train.main, [*flags, "--workers", "0"]))


def counted(average: Callable[[Run, Update], None], counter: Counter) -> Callable[[Run, Update], None]:
    """The hook that comes before saving, which also notes the iteration."""

    def note(run: Run, update: Update) -> None:
        average(run, update)
        counter.value = update.iteration

    return note


def wait_and_kill(child: int, counter: Counter, iterations: int, draw: random.Random) -> bool:
    """Kill after some iterations and a random part of one; False if the training ended first."""
    first = seen = counter.value
    changed, pace = time.perf_counter(), 0.005
    while counter.value < first + iterations:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert os.waitstatus_to_exitcode(status) == EXIT_OK, "the training failed, see killed.log"
            return False
        if counter.value != seen:
            now = time.perf_counter()
            pace, changed, seen = (now - changed) / (counter.value - seen), now, counter.value
        time.sleep(0.0002)
    time.sleep(draw.uniform(0, 1.5 * min(pace, 1.0)) if iterations else draw.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def campaign(folder: Path, kills: int, every: int, seed: int = 0) -> Outcome:
    """Train in `folder` with so many kills, then to the end."""
    draw = random.Random(seed)
    length = MAX_ITERATIONS * kills // 2 + 30
    prepare(folder, length, every)
    torch.optim.SGD([torch.zeros(1)], lr=1.0)  # the first optimizer of a process imports much of PyTorch
    outcome, counter, begun = Outcome(every), Counter(), time.perf_counter()
    weights = folder / "killed" / "weights"
    while outcome.kills < kills:
        saved = outcome.iterations
        counter.value = saved
        iterations = draw.randrange(MAX_ITERATIONS)
        if not wait_and_kill(start(folder, "killed", counter), counter, iterations, draw):
            break
        outcome.kills += 1
        outcome.in_start += counter.value == saved
        outcome.in_write += any(weights.parent.rglob(".*.part"))
        found = readable(weights / "last.pt")
        outcome.iterations = found.iteration if found else 0
        outcome.readable += found is not None or counter.value <= every
        outcome.most_lost = max(outcome.most_lost, counter.value - outcome.iterations)
    for name in ("killed", "whole"):
        assert os.waitpid(start(folder, name, counter), 0)[1] == 0, f"{name}: failed, see {folder}/{name}.log"
    ends = [(folder / name / "weights" / "my_final.weights").read_bytes() for name in ("killed", "whole")]
    outcome.same, outcome.iterations = ends[0] == ends[1], length
    outcome.seconds = time.perf_counter() - begun
    return outcome


def readable(path: Path) -> Checkpoint | None:
    return load_checkpoint(path) if path.exists() else None


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=above_zero, default=200)
    parser.add_argument("--every", type=above_zero, default=2, help="iterations between checkpoints, default 2")
    parser.add_argument("--seed", type=whole, default=0)
    return parser.parse_args(arguments)


def main() -> None:
    options = parse_arguments()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        outcome = campaign(Path(folder), options.kills, options.every, options.seed)
    print(outcome.text())
    sys.exit(not (outcome.same and outcome.readable == outcome.kills and outcome.most_lost <= options.every))


if __name__ == "__main__":
    main()

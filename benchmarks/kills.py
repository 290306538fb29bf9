"""Kill the project's commands at random moments, and check what they leave behind.

Training runs (in one process with mosaic, multi-scale training and dropout; with a moving average; in two processes) are killed
and resumed repeatedly. After every kill, last.pt must be readable and no older than the interval at which it is saved. At the
end, the weights must be bit for bit those of an uninterrupted run.

Commands that write results (evaluation, detection with a video, conversion, export, the image cache) are killed in an empty
folder, or while they replace the results of an earlier run. After every kill, each file must be the old one, the new one, or
absent. The next run must complete the results.

The parent process imports everything once and forks the processes that it kills, so that a kill costs little time.

  python benchmarks/kills.py --kills 1000
  python benchmarks/kills.py --kills 100 --only training export
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import convert
import detect
import export
import test
import train
from data.image_cache import DISK, CacheOptions, open_cache
from data.video import VideoWriter
from inference import compile_cache
from inference.journal import JOURNAL
from models.load import load
from models.weights import save_weights
from training.checkpoint import load_checkpoint
from training.loop import Update
from training.run import Run
from utils.cli import EXIT_FAILED, EXIT_OK, above_zero, run_script, whole

CFG = """[net]
batch=2
subdivisions=1
width=32
height=32
channels=3
learning_rate=0.001
max_batches={length}
mosaic=1
ema_alpha={ema}

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
AVERAGED = 2400
"""Iterations of the training with a moving average, which needs more than two thousand (training/optimizer.py)."""
_AHEAD = 5  # iterations that a training may continue if the machine delays the kill
_TERM_S, _KILL_S = 5, 10  # seconds from the kill of one process to SIGTERM and SIGKILL for the others, as by torchrun


@dataclass
class Kills:
    """Number of kills; in_write: kills that left a temporary file; in_start: kills before there were any results."""

    kills: int = 0
    in_write: int = 0
    in_start: int = 0
    seconds: float = 0.0


@dataclass
class Outcome(Kills):
    """Outcome of a killed and resumed training.

    every: iterations between checkpoints.
    readable: kills after which last.pt was readable, or not due yet.
    most_lost: maximum number of iterations lost by one kill.
    same: whether the final weights equal those of a run without kills.
    """

    every: int = 1
    readable: int = 0
    most_lost: int = 0
    iterations: int = 0
    same: bool = False

    @property
    def good(self) -> bool:
        return self.same and self.readable == self.kills and self.most_lost <= self.every

    def text(self) -> str:
        same = "same weights as without kills" if self.same else "OTHER WEIGHTS than without kills"
        return (
            f"last.pt readable after {self.readable}, at most {self.most_lost} iterations lost (saved every {self.every}), "
            f"{self.iterations} iterations, {same}"
        )


@dataclass
class Leftovers(Kills):
    """What a command left when it was killed.

    files: number of files compared.
    bad: descriptions of files that were neither the old nor the new one.
    completed: how many of `runs` later runs produced exactly the results of a run without kills.
    """

    files: int = 0
    runs: int = 0
    completed: int = 0
    bad: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return not self.bad and self.completed == self.runs

    def text(self) -> str:
        broken = f"BROKEN: {', '.join(self.bad[:5])}" if self.bad else "all old, new or absent"
        return f"{self.files} files compared, {broken}; {self.completed} of {self.runs} later runs complete them"


Counter = ctypes.c_longlong  # created by RawValue: a process and its children share the value


def prepare(folder: Path, length: int, every: int, filters: int = 64, ema: float = 0.0) -> None:
    """Write four small images, their labels and a cfg."""
    rng = np.random.default_rng(0)
    for number in range(4):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 255, (40, 40, 3), np.uint8))
        (folder / f"{number}.txt").write_text(f"{number % 2} 0.5 0.5 0.4 0.5\n")
    (folder / "list.txt").write_text("".join(f"{folder}/{number}.png\n" for number in range(4)))
    (folder / "my.names").write_text("a\nb\n")
    data = f"classes=2\ntrain={folder}/list.txt\nvalid={folder}/list.txt\nnames={folder}/my.names\nsavelast={every}\n"
    (folder / "my.data").write_text(data)
    (folder / "my.cfg").write_text(CFG.format(length=length, filters=filters, ema=ema))


def fork(log: Path, work: Callable[[], int]) -> int:
    """Fork a child that calls `work`, prints into `log`, and exits with the code returned; returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        file = log.open("a", buffering=1)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        tqdm.set_lock(
            threading.RLock()
        )  # forks share the default lock: if one is killed while holding it, the others would block
        torch.set_num_threads(1)
        code = work()
        sys.stdout.flush()
        os._exit(code)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(99)


# Trainings


def start(folder: Path, name: str, counter: Counter, processes: int = 1, limit: int | None = None) -> list[int]:
    """Train in child processes, resuming from last.pt if it exists; returns their ids. They wait at iteration `limit`."""
    last = folder / name / "weights" / "last.pt"
    begin = ["--cfg", f"{folder}/my.cfg", "--data", f"{folder}/my.data", "--project", str(folder), "--name", name]
    flags = ["--resume", str(last)] if last.exists() else [*begin, "--exist-ok", "--no-val", "--no-plots"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def work(rank: int) -> int:
        if processes > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        if rank == 0:
            Run._average = counted(Run._average, counter, limit)  # type: ignore[method-assign, assignment]
        return run_script(train.main, [*flags, "--workers", "0"])

    return [fork(folder / f"{name}.log", lambda rank=rank: work(rank)) for rank in range(processes)]  # type: ignore[misc]


def counted(
    average: Callable[[Run, Update], None], counter: Counter, limit: int | None
) -> Callable[[Run, Update], None]:
    """Wrap the hook before saving so that it also records the iteration, and waits to be killed at the limit."""

    def note(run: Run, update: Update) -> None:
        average(run, update)
        counter.value = update.iteration
        while update.iteration == limit:
            time.sleep(1)

    return note


def wait_and_kill(children: list[int], counter: Counter, iterations: int, draw: random.Random) -> bool:
    """Kill one of the processes after `iterations` and a random fraction of one; False if the training ended first."""
    first = seen = counter.value
    changed, pace = time.perf_counter(), 0.005
    while counter.value < first + iterations:
        ended, status = os.waitpid(children[0], os.WNOHANG)
        if ended:
            assert os.waitstatus_to_exitcode(status) == EXIT_OK, "the training failed, see killed.log"
            _wait(children[1:])
            return False
        if counter.value != seen:
            now = time.perf_counter()
            pace, changed, seen = (now - changed) / (counter.value - seen), now, counter.value
        time.sleep(0.0002)
    time.sleep(draw.uniform(0, 1.5 * min(abs(pace), 1.0)) if iterations else draw.uniform(0, 0.1))
    victim = draw.choice(children)
    os.kill(victim, signal.SIGKILL)
    _wait([victim, *(child for child in children if child != victim)])
    return True


def _wait(children: Sequence[int]) -> None:
    """Wait for the processes of a training that is over; processes that continue are ended, as by torchrun."""
    for child in children:
        begun = time.monotonic()
        while not os.waitpid(child, os.WNOHANG)[0]:
            waited = time.monotonic() - begun
            if waited > _TERM_S:
                os.kill(child, signal.SIGKILL if waited > _KILL_S else signal.SIGTERM)
            time.sleep(0.01)


def campaign(
    folder: Path, kills: int, every: int, seed: int = 0, *, ema: float = 0.0, processes: int = 1, most: int = 6
) -> Outcome:
    """Train in `folder` with this many kills, then to the end; most: maximum iterations of a run before it is killed."""
    draw = random.Random(seed)
    length = max(most * kills + 30, AVERAGED if ema else 0)
    most = max(most, length // (kills + 1)) if ema else most
    prepare(folder, length, every, ema=ema)
    torch.optim.SGD([torch.zeros(1)], lr=1.0)  # the first optimizer in a process imports large parts of PyTorch
    outcome, counter, begun = Outcome(every=every), RawValue(Counter), time.perf_counter()
    weights = folder / "killed" / "weights"
    while outcome.kills < kills and outcome.iterations < length:
        saved = outcome.iterations
        counter.value = saved
        iterations = draw.randrange(most)
        children = start(folder, "killed", counter, processes, saved + iterations + _AHEAD)
        if not wait_and_kill(children, counter, iterations, draw):
            break
        outcome.kills += 1
        outcome.in_start += counter.value == saved
        outcome.in_write += any(weights.parent.rglob(".*.part"))
        found = load_checkpoint(weights / "last.pt") if (weights / "last.pt").exists() else None
        outcome.iterations = found.iteration if found else 0
        outcome.readable += found is not None or counter.value <= every
        outcome.most_lost = max(outcome.most_lost, counter.value - outcome.iterations)
    for name in ("killed", "whole"):
        if name == "whole" or outcome.iterations < length:
            codes = _wait_for_all(start(folder, name, counter, processes))
            assert codes == [EXIT_OK] * processes, f"{name}: failed, see {folder}/{name}.log"
    ends = [(folder / name / "weights" / "my_final.weights").read_bytes() for name in ("killed", "whole")]
    outcome.same, outcome.iterations = ends[0] == ends[1], length
    outcome.seconds = time.perf_counter() - begun
    return outcome


def _wait_for_all(children: Sequence[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


# Commands that write results


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that writes results into `folder/out` from the inputs in `folder`.

    run: runs it, returns its exit code; version 0 or 1 selects one of two inputs, whose results differ.
    fresh: the command rejects a folder with the results of an earlier run.
    sets: files that must be of the same version: name of the file that marks the set complete, path prefix of the others.
    """

    run: Callable[..., int]
    fresh: bool = False
    sets: tuple[tuple[str, str], ...] = ()


def inputs(folder: Path) -> None:
    """Write a data set, two videos, and two weights files for one cfg.

    A process of its own does it: threads that end may hold a lock of OpenCV for a moment after they were joined, which the
    processes that the caller forks would never get.
    """
    log = folder / "inputs.log"
    assert _wait_for_all([fork(log, lambda: _write_inputs(folder))]) == [EXIT_OK], f"no inputs, see {log}"


def _write_inputs(folder: Path) -> int:
    prepare(folder, 10, 2, filters=8)
    network = load(folder / "my.cfg")
    for version in (0, 1):
        generator = torch.Generator().manual_seed(version)
        for _, item in network.stored():
            item.tensor.data.copy_(torch.rand(item.tensor.shape, generator=generator))
        save_weights(network, folder / f"{version}.weights")
        with VideoWriter(folder / f"clip{version}.mp4", 25) as video:
            for number in range(40):
                video.write(np.full((48, 64, 3), 50 * version + 4 * number, np.uint8))
    return EXIT_OK


def _model(folder: Path, version: int) -> list[str]:
    return ["--cfg", f"{folder}/my.cfg", "--weights", f"{folder}/{version}.weights"]


def _out(folder: Path) -> list[str]:
    return ["--project", str(folder), "--name", "out", "--exist-ok"]


def _evaluate(folder: Path, version: int, *more: str) -> int:
    flags = [*_model(folder, version), "--data", f"{folder}/my.data", "--conf-thres", "0.05", "--no-plots"]
    return run_script(test.main, [*flags, "--save-json", "--save-txt", *more, *_out(folder)])


def _detect(folder: Path, version: int) -> int:
    source = ["--source", f"{folder}/clip{version}.mp4", f"{folder}/0.png", "--conf-thres", "0.3", "--fourcc", "mp4v"]
    flags = ["--save-json", "--save-csv", "--save-txt", "--save-crop", "--names", f"{folder}/my.names"]
    return run_script(detect.main, [*_model(folder, version), *source, *flags, *_out(folder)])


def _convert(folder: Path, version: int) -> int:
    for suffix in ("pt", "safetensors", "weights"):
        code = run_script(convert.main, ["weights", *_model(folder, version), "--out", f"{folder}/out/a.{suffix}"])
        if code:
            return code
    return EXIT_OK


def _convert_data(folder: Path, version: int) -> int:
    for target in ("darknet/a.data", "coco.json", "ultralytics/a.yaml", "voc"):
        path = folder / "out" / target
        for part in path.parent.glob(f"{path.stem}_*.json"):  # an earlier conversion, which is not replaced
            part.unlink()
        if not _complete(path):
            flags = ["--from", f"{folder}/my.data", "--to", str(path), "--copy"]
            if code := run_script(convert.main, ["labels", *flags]):
                return code
    return EXIT_OK


def _complete(path: Path) -> bool:
    """Whether a data set is complete; an incomplete Pascal VOC folder is removed, as the error message instructs."""
    if path.suffix:
        return path.exists()
    if path.exists() and not (path / "classes.names").exists():
        shutil.rmtree(path)
    return path.exists()


def _export(folder: Path, version: int) -> int:
    flags = ["--include", "onnx", "torchscript", "openvino", "--out", f"{folder}/out/a"]
    return run_script(export.main, [*_model(folder, version), *flags])


def _cache(folder: Path, version: int) -> int:
    rng = np.random.default_rng(version)
    images = [folder / f"{number}.png" for number in range(4)]
    for path in images:  # replaces the old ones, so that modification times differ
        cv2.imwrite(str(path), rng.integers(0, 255, (40, 40, 3), np.uint8))
        os.utime(path, (1000 + version, 1000 + version))
    cache = open_cache(images, 3, CacheOptions(kind=DISK, folder=folder / "out"))
    return EXIT_OK if cache is not None and cache[3] is not None else EXIT_FAILED


def _compiled(folder: Path, version: int) -> int:
    os.environ["XDG_CACHE_HOME"] = f"{folder}/out"
    contents = {f"model{number}": bytes([version, number]) * 2**19 for number in range(8)}
    for name, content in contents.items():
        compile_cache.write(name, content)
    return EXIT_OK if all(compile_cache.read(name) == contents[name] for name in contents) else EXIT_FAILED


COMMANDS = {
    "evaluation": Command(run=_evaluate),
    "detection": Command(run=_detect),
    "conversion": Command(run=_convert),
    "data sets": Command(
        run=_convert_data,
        fresh=True,
        sets=(("a.data", "darknet/"), ("a.yaml", "ultralytics/"), ("classes.names", "voc/")),
    ),
    "export": Command(run=_export, sets=(("a.xml", "a.bin"),)),
    "image cache": Command(run=_cache),
    "compiled models": Command(run=_compiled),
}


def kill_command(folder: Path, command: Command, kills: int, seed: int = 0) -> Leftovers:
    """Kill a command `kills` times in `folder`, at moments spread evenly over its run."""
    draw, found, begun = random.Random(seed), Leftovers(), time.perf_counter()
    inputs(folder)
    out, log = folder / "out", folder / "commands.log"
    whole = [_reference(folder, command, version) for version in (0, 1)]
    seconds = _reference(folder, command, 1)[1]
    wanted = [tree for tree, _ in whole]
    while found.kills < kills:
        shutil.rmtree(out, ignore_errors=True)
        if old := not command.fresh and draw.random() < 0.5:
            shutil.copytree(folder / "whole0", out, symlinks=True)
        child = fork(log, lambda: command.run(folder, 1))
        if not _kill_after(child, draw.uniform(0, seconds), log):
            continue
        found.kills += 1
        found.in_start += not any(out.rglob("*"))
        found.in_write += any(".part" in path.name for path in out.rglob(".*"))
        left = tree(out)
        found.files += len(left)
        found.bad += judge(left, wanted if old else wanted[1:], command.sets)
        if found.kills % 10 == 0 or found.kills == kills:
            found.runs += 1
            code = _wait_for_all([fork(log, lambda: command.run(folder, 1))])
            found.completed += code == [EXIT_OK] and wanted[1].items() <= tree(out).items()
    found.seconds = time.perf_counter() - begun
    return found


def _kill_after(child: int, seconds: float, log: Path) -> bool:
    """Kill a command after it has worked for `seconds`, independent of other load; False if it ended first."""
    ticks = os.sysconf("SC_CLK_TCK")
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert os.waitstatus_to_exitcode(status) == EXIT_OK, f"the command failed, see {log}"
            return False
        times = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13]
        left = seconds - sum(map(int, times)) / ticks
        if left <= 1 / ticks:
            time.sleep(max(left, 0))
            break
        time.sleep(left / 4)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def _reference(folder: Path, command: Command, version: int) -> tuple[dict[str, Any], float]:
    """The results of an undisturbed run, kept in `whole0` or `whole1`, and the seconds that it took."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    child = fork(folder / "commands.log", lambda: command.run(folder, version))
    _, status, used = os.wait4(child, 0)
    assert os.waitstatus_to_exitcode(status) == EXIT_OK, f"the command failed, see {folder}/commands.log"
    shutil.rmtree(folder / f"whole{version}", ignore_errors=True)
    shutil.copytree(out, folder / f"whole{version}", symlinks=True)
    return tree(out), used.ru_utime + used.ru_stime


def tree(folder: Path) -> dict[str, Any]:
    """The content of every user-visible file below `folder`, by name.

    Times in metrics.json, and the line numbers of callers that PyTorch writes into TorchScript, are left out.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = path.suffix == ".part" or path.name == JOURNAL or any(part.startswith(".") for part in name.parts)
        if hidden or path.is_dir():
            continue
        data: Any = path.read_bytes()
        with contextlib.suppress(ValueError, zipfile.BadZipFile):  # truncated: its bytes differ from the complete ones
            if path.name == "metrics.json":
                data = {key: value for key, value in json.loads(data).items() if "speed" not in key}
            elif path.suffix == ".torchscript":
                with zipfile.ZipFile(io.BytesIO(data)) as parts:
                    kept = (part for part in parts.namelist() if not part.endswith((".debug_pkl", "_id")))
                    data = {part: parts.read(part) for part in kept}
        found[str(name)] = data
    return found


def judge(left: dict[str, Any], versions: Sequence[dict[str, Any]], sets: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """What is wrong with the files that a killed command left, given the complete files of each version."""
    bad = []
    for name, data in left.items():
        whole = [version.get(name) for version in versions]
        grows = name.endswith("results.csv") and any(text is not None and text.startswith(data) for text in whole)
        if data not in whole and not grows:
            bad.append(f"{name} ({len(data)} bytes)")
    return (*bad, *torn_sets(left, versions, sets))


def torn_sets(
    left: dict[str, Any], versions: Sequence[dict[str, Any]], sets: Sequence[tuple[str, str]]
) -> Iterator[str]:
    """Yield files that mark their set complete although its files are not all of one version; sets: see Command."""
    for last, others in sets:
        for name in (name for name in left if Path(name).name == last):
            whole = (
                {each: data for each, data in version.items() if each == name or each.startswith(others)}
                for version in versions
                if name in version
            )
            if not any(files.items() <= left.items() for files in whole):
                yield f"{name} without the files that belong to it"


# The campaign

TRAININGS: dict[str, dict[str, Any]] = {
    "training": {},
    "moving average": {"ema": 0.9, "every": 10},
    "two processes": {"processes": 2},
}
SHARES = {"training": 0.3, "moving average": 0.1, "two processes": 0.1}
"""Fractions of all kills; the commands share the rest."""


def import_all() -> None:
    """Import what the children need, because importing would take most of their time."""
    import onnx
    import onnxruntime
    import openvino
    import safetensors.torch
    import torch._dynamo
    import torch.jit

    assert all((onnx, onnxruntime, openvino, safetensors.torch, torch._dynamo, torch.jit))


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=above_zero, default=1000, help="total number of kills (default 1000)")
    parser.add_argument("--every", type=above_zero, default=2, help="iterations between checkpoints (default 2)")
    parser.add_argument("--only", nargs="+", choices=[*TRAININGS, *COMMANDS], help="what to kill (default all)")
    parser.add_argument("--seed", type=whole, default=0)
    return parser.parse_args(arguments)


def main() -> None:
    options = parse_arguments()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    import_all()
    chosen = options.only or [*TRAININGS, *COMMANDS]
    rest = (1 - sum(SHARES.values())) / len(COMMANDS)
    total = sum(SHARES.get(name, rest) for name in chosen)
    print(
        f"seed {options.seed}\n\n| what | kills | in a write | in the start | result | seconds |\n|---|---|---|---|---|---|"
    )
    done, failed = 0, False
    for name in chosen:
        kills = max(1, round(options.kills * SHARES.get(name, rest) / total))
        with tempfile.TemporaryDirectory() as folder:
            found: Outcome | Leftovers
            if name in TRAININGS:
                found = campaign(Path(folder), kills, seed=options.seed, **({"every": options.every} | TRAININGS[name]))
            else:
                found = kill_command(Path(folder), COMMANDS[name], kills, options.seed)
        numbers = f"{found.kills} | {found.in_write} | {found.in_start}"
        print(f"| {name} | {numbers} | {found.text()} | {found.seconds:.0f} |", flush=True)
        done, failed = done + found.kills, failed or not found.good
    print(f"\n{done} kills")
    sys.exit(failed)


if __name__ == "__main__":
    main()

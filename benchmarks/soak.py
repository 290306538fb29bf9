"""Run detect.py and train.py for a long time, and monitor their memory, open files and threads.

  python benchmarks/soak.py detect --count 100000
  python benchmarks/soak.py train --count 10000 --workers 1

detect runs a model over the frames of a hundred videos, writing annotated videos, JSON and CSV. train runs iterations of a tiny
network with mosaic, saved every hundred. Memory covers the command and its child processes, with shared pages counted once. After
a fifth of the run it may grow by 2 %; the number of files and threads must not increase. Ctrl-C ends the run with a report.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import ROOT, Usage, children, table, usage
from benchmarks.kills import prepare
from data.video import VideoWriter
from utils.cli import EXIT_INTERRUPTED, EXIT_OK, above_zero, whole

VIDEOS = 100
_GROWTH = 0.02
_EVERY_S = 0.5
_WARM_UP, _WINDOW = 0.2, 0.2  # fractions of the samples


def sample(pid: int) -> Usage | None:
    """Usage of a process and its children; None if one of them has ended."""
    try:
        return Usage(*map(sum, zip(*map(usage, (pid, *children(pid))), strict=True)))
    except OSError:
        return None


def watch(command: list[str], folder: Path) -> tuple[int, list[Usage]]:
    """Run a command; returns its exit code, and samples from start to end. Ctrl-C is passed on."""
    samples = []
    with (folder / "soak.log").open("w") as log:
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=log, stderr=log)
        try:
            while process.poll() is None:
                if (seen := sample(process.pid)) is not None:
                    samples.append(seen)
                time.sleep(_EVERY_S)
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
    return process.returncode, samples


def report(samples: list[Usage]) -> bool:
    """Print a summary; returns whether memory stayed flat and files and threads did not increase."""
    used = samples[int(len(samples) * _WARM_UP) :]
    window = max(1, int(len(used) * _WINDOW))
    first, last = used[:window], used[-window:]
    rows, good = [], True
    for name in Usage._fields:
        before, after = (statistics.median(getattr(each, name) for each in part) for part in (first, last))
        most = max(getattr(each, name) for each in used)
        good &= after <= before * (1 + _GROWTH) if name == "memory" else after <= before
        unit, digits = (" MiB", 1) if name == "memory" else ("", 0)
        first_text, last_text, most_text = (f"{each:.{digits}f}{unit}" for each in (before, after, most))
        rows.append((name, first_text, f"{last_text} ({100 * (after / before - 1):+.2f} %)", most_text))
    print(table(("what", "after the warm-up", "at the end", "most"), rows))
    print(f"\n{len(samples)} samples")
    return good


def detect_command(folder: Path, count: int) -> list[str]:
    """Write videos with `count` frames in total; returns the command that detects objects in them."""
    source = folder / "videos"
    rng = np.random.default_rng(0)
    with VideoWriter(folder / "clip.mp4", 25, "mp4v") as video:
        for _ in range(max(1, count // VIDEOS)):
            video.write(rng.integers(0, 255, (48, 64, 3), np.uint8))
    source.mkdir()
    for number in range(VIDEOS):
        os.link(video.path, source / f"{number}.mp4")
    flags = ["--img-size", "32", "--conf-thres", "0.01", "--save-json", "--save-csv", "--fourcc", "mp4v"]
    return ["detect.py", "--source", str(source), *flags, "--project", str(folder)]


def train_command(folder: Path, count: int, workers: int) -> list[str]:
    prepare(folder, count, 100, filters=8)
    given = ["--cfg", f"{folder}/my.cfg", "--data", f"{folder}/my.data", "--project", str(folder)]
    return ["train.py", *given, "--no-plots", "--eval-period", "500", "--workers", str(workers)]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("detect", "train"))
    parser.add_argument("--count", type=above_zero, required=True, help="frames or iterations")
    parser.add_argument("--workers", type=whole, default=1, help="processes that load training data (default 1)")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse_arguments()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder, begun = Path(name), time.monotonic()
        if options.what == "detect":
            command = detect_command(folder, options.count)
        else:
            command = train_command(folder, options.count, options.workers)
        code, samples = watch(command, folder)
        said = (folder / "soak.log").read_text(errors="replace").splitlines()
    print(f"{' '.join(command[:1])}, {options.count}, exit code {code}, {time.monotonic() - begun:.0f} s")
    print("\n".join(line for line in said[-3:] if "\r" not in line))
    good = report(samples) if samples else False
    sys.exit(not (good and code in (EXIT_OK, EXIT_INTERRUPTED)))


if __name__ == "__main__":
    main()

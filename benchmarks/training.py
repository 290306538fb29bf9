"""Compare training throughput with the original program, end to end: decoding, augmentation, weight updates.

Both train the same cfg on the same generated images with the same batch and number of threads. They take turns, so that the ratio
holds if the machine's speed drifts. Images are counted between the lines that both print for every iteration; the first
iterations, in which caches fill, are left out.

Build the original (https://github.com/AlexeyAB/darknet) with AVX=1 OPENMP=1, then

  python benchmarks/training.py --darknet /somewhere/darknet/darknet
  python benchmarks/training.py --darknet /somewhere/darknet/darknet --amp bf16
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from data.sources import open_data
from models.fit import fit_classes
from models.plan import make_plan, read_plan
from utils.cfg import Cfg

WARM_UP = 4
LINE = re.compile(r"^\s*(\d+): [-\d.naif]+, ")


def timed_lines(command: list[str], folder: Path, threads: int) -> Iterator[tuple[int, float]]:
    """Yield (iteration, time of its line). The command runs on a pseudo-terminal, so that output is not buffered."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, cwd=folder, stdout=theirs, stderr=subprocess.STDOUT, env=environment)
    os.close(theirs)
    try:
        with os.fdopen(ours, errors="replace") as output:
            for text in output:
                if found := LINE.match(text):
                    yield int(found[1]), time.perf_counter()
    except OSError:  # raised on Linux by the terminal of a process that has ended
        pass
    finally:
        process.kill()
        process.wait()


def images_per_second(command: list[str], folder: Path, threads: int, batch: int, iterations: int) -> float:
    times = dict(timed_lines(command, folder, threads))
    if iterations not in times or WARM_UP not in times:
        raise SystemExit(f"no line of iteration {iterations} from: {' '.join(command)}")
    return batch * (iterations - WARM_UP) / (times[iterations] - times[WARM_UP])


def benchmark_cfg(path: str, classes: int, values: dict[str, object]) -> Cfg:
    """The cfg for this number of classes, with these [net] keys and a single input size."""
    cfg = fit_classes(read_plan(path), classes).with_values(0, values)
    for step in make_plan(cfg).box_heads:
        cfg = cfg.with_values(step.index + 1, {"random": 0})
    return cfg


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--darknet", required=True, help="the original's binary")
    parser.add_argument("--cfg", default=str(ROOT / "cfg" / "yolov3-tiny-prn.cfg"))
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--batch-size", "--batch", type=int, default=16)
    parser.add_argument("--subdivisions", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="loader processes for cspyolo (default 1)")
    parser.add_argument("--iterations", type=int, default=24, help="iterations per turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--amp", choices=("bf16",), help="train cspyolo in 16-bit floats")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse_arguments()
    values = {
        "batch": options.batch_size,
        "subdivisions": options.subdivisions,
        "width": options.img_size,
        "height": options.img_size,
        "max_batches": options.iterations,
        "learning_rate": 1e-5,
        "burn_in": 0,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw = [sys.executable, "-m", "data.scenes", "--out", str(folder / "scenes"), "--count", "200"]
        subprocess.run(draw, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        (data,) = (folder / "scenes").glob("*.data")
        (folder / "backup").mkdir()
        data.write_text(data.read_text() + f"backup={folder / 'backup'}\n")
        cfg = folder / "a.cfg"
        benchmark_cfg(options.cfg, len(open_data(str(data), "train").names), values).write(cfg)
        theirs = [str(Path(options.darknet).resolve()), "detector", "train", str(data), str(cfg), "-dont_show"]
        ours = [sys.executable, str(ROOT / "train.py"), "--cfg", str(cfg), "--data", str(data), "--print", "darknet"]
        ours += ["--workers", str(options.workers), "--no-val", "--no-save", "--no-plots"]
        ours += ["--project", str(folder / "runs")] + (["--amp", options.amp] if options.amp else [])
        rates: dict[str, list[float]] = {"ours": [], "original": []}
        for turn in range(options.turns):
            for who, command in (("original", theirs), ("ours", ours)):
                rate = images_per_second(command, data.parent, options.threads, options.batch_size, options.iterations)
                rates[who].append(rate)
                print(f"turn {turn + 1}, {who}: {rate:.1f} images/s", flush=True)
        pairs = [a / b for a, b in zip(rates["ours"], rates["original"], strict=True)]
        medians = {who: statistics.median(values) for who, values in rates.items()}
        print(
            f"{Path(options.cfg).stem} {options.img_size}, batch {options.batch_size}, {options.threads} threads: "
            f"ours {medians['ours']:.1f} images/s, original {medians['original']:.1f}; ours / original "
            f"{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})"
        )


if __name__ == "__main__":
    main()

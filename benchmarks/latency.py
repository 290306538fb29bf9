"""Measure the latency of every model in the papers' tables, for docs/models.md.

One image, one thread, batch normalisation folded. The result is the minimum CPU time of several passes in several rounds over
all models, which is what a pass takes if nothing else runs on the machine.

--table-5 instead measures the frames per second of CSPNet's Table 5, in wall-clock time, with benchmarks/inference.py: the
installed engines, and OpenCV 4 from its own environment.

  python benchmarks/latency.py
  python benchmarks/latency.py --table-5 --opencv-python /somewhere/cv4/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import ROOT, cfg_path
from benchmarks.inference import HEADINGS, forward_passes, prepared
from compose.published import TABLE_5, TABLES
from models.load import load
from profiling.timing import settle_statistics
from utils.files import write_text
from utils.packages import is_installed

OUT = ROOT / "benchmarks" / "latency.json"
PASSES = 3


def least_ms(name: str, side: int) -> float:
    """Processor milliseconds of the fastest of PASSES forward passes, after a warm-up pass."""
    network = settle_statistics(load(cfg_path(name), width=side, height=side)).fold()
    image = torch.rand(1, 3, side, side)
    seconds = []
    with torch.inference_mode():
        for _ in range(PASSES + 1):
            start = time.process_time()
            network(image)
            seconds.append(time.process_time() - start)
    return 1e3 * min(seconds[1:])


def processor() -> str:
    """Name of the processor, if the system reports it."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()


def frames_per_second(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Frames per second for the rows of Table 5, by engine: the maximum of several rounds over all rows."""
    options.engine = [name for name in ("torch", "onnxruntime", "openvino") if is_installed(name)]
    options.engine += ["opencv"] * bool(options.opencv_python)
    options.turns = 1
    found: dict[str, dict[str, float]] = {}
    for number in range(options.rounds):
        for row in (each for each in TABLE_5.rows if each.model):
            with tempfile.TemporaryDirectory() as folder:
                network = prepared(row.model, row.side, 1, Path(folder), onnx="opencv" in options.engine)
                times, _ = forward_passes(network, options, Path(folder))
            best = found.setdefault(f"{row.model}@{row.side}", {})
            for name, ms in times.items():
                best[HEADINGS[name]] = max(best.get(HEADINGS[name], 0.0), round(1e3 / ms, 1))
            print(f"round {number + 1}, {row.model}: {best}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--table-5", action="store_true")
    parser.add_argument("--opencv-python", help="for --table-5: Python of an environment with OpenCV 4.x")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for --table-5 (default: all processors)")
    parser.add_argument(
        "--passes", type=int, default=9, help="for --table-5: passes per round, of which the median counts"
    )
    options = parser.parse_args()
    place = f"an {processor()} with PyTorch {torch.__version__}"
    results = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {"about": "", "ms": {}}
    if options.table_5:
        results["fps"] = frames_per_second(options)
        results["fps_about"] = (
            f"*Here* is {options.threads} threads on {place}, batch 1, only the network, wall-clock time, the best of "
            f"{options.rounds} medians; `python benchmarks/latency.py --table-5` measures it on your machine."
        )
    else:
        results["ms"] = least_of_all_models(options.rounds)
        results["about"] = (
            f"*Ours [ms]* is the CPU time of a forward pass with one image and one thread on {place}, "
            f"the minimum of {PASSES * options.rounds}; `python benchmarks/latency.py` measures it on your machine."
        )
    write_text(options.out, json.dumps(results, indent=1) + "\n")


def least_of_all_models(rounds: int) -> dict[str, float]:
    """Minimum processor milliseconds of several rounds, by model and input size."""
    torch.set_num_threads(1)
    found: dict[str, float] = {}
    for number in range(rounds):
        for name, side in dict.fromkeys((row.model, row.side) for table in TABLES for row in table.rows if row.model):
            key, measured = f"{name}@{side}", round(least_ms(name, side), 1)
            found[key] = min(measured, found.get(key, measured))
            print(f"round {number + 1}, {key}: {measured} ms", flush=True)
    return found


if __name__ == "__main__":
    main()

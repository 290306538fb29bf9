"""Measures a forward pass of every model of the papers' tables, for docs/models.md.

One image, one thread, batch norm folded. Processor time is measured, not the
clock, and the least of several passes in several rounds over all models is taken: what a pass needs when nothing else
runs on the machine.

  python benchmarks/latency.py
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from compose.published import TABLES
from models.load import load
from profiling.timing import settle_statistics
from utils.files import write_text

OUT = ROOT / "benchmarks" / "latency.json"


PASSES = 3


def least_ms(name: str, side: int) -> float:
    """Processor milliseconds of the quickest of PASSES forward passes after one for warming up."""
    network = settle_statistics(load(ROOT / "cfg" / f"{name}.cfg", width=side, height=side)).fold()
    image = torch.rand(1, 3, side, side)
    seconds = []
    with torch.inference_mode():
        for _ in range(PASSES + 1):
            start = time.process_time()
            network(image)
            seconds.append(time.process_time() - start)
    return 1e3 * min(seconds[1:])


def processor() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, float] = {}
    for number in range(options.rounds):
        for name, side in dict.fromkeys((row.model, row.side) for table in TABLES for row in table.rows if row.model):
            key, measured = f"{name}@{side}", round(least_ms(name, side), 1)
            found[key] = min(measured, found.get(key, measured))
            print(f"round {number + 1}, {key}: {measured} ms", flush=True)
    about = (
        f"*Ours [ms]* is the processor time of a forward pass of one image on one thread of an {processor()} with "
        f"PyTorch {torch.__version__}, the least of {PASSES * options.rounds}; "
        "`python benchmarks/latency.py` measures it elsewhere."
    )
    write_text(options.out, json.dumps({"about": about, "ms": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Forward passes side by side with OpenCV's DNN module, which read Darknet models until version 5.

Both get the same cfg, weights, input and number of threads, batch 1, and take turns in one run, so that the ratio holds
when the machine's speed drifts. OpenCV 4.x needs an environment of its own:

  python3 -m venv /somewhere/cv4 && /somewhere/cv4/bin/pip install "opencv-python-headless<5"
  python benchmarks/inference.py --opencv-python /somewhere/cv4/bin/python
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from models.load import load
from models.network import Network
from models.weights import save_weights

DEFAULT = ("csresnext50-panet-spp", "yolov3-tiny-prn", "csppeleenet-efm")
TURN = (
    4  # passes of one turn, whose median counts: the first ones after the other's turn find cold caches and idle cores
)


class OpenCv:
    """OpenCV in its own process."""

    def __init__(self, python: str) -> None:
        command = [python, str(ROOT / "benchmarks" / "opencv_worker.py")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *words: object) -> str:
        assert self._process.stdin and self._process.stdout
        print(*words, sep="\t", file=self._process.stdin, flush=True)
        return self._process.stdout.readline().strip()


def weighted(network: Network) -> Network:
    """Random weights with a plausible batch normalisation, so that no activation overflows or vanishes."""
    for _, item in network.stored():
        if item.kind == "rolling_variance":
            item.tensor.fill_(1.0)
    return network


def our_seconds(network: Network, image: torch.Tensor) -> float:
    start = time.perf_counter()
    network(image)
    return time.perf_counter() - start


def compare(name: str, size: int, runs: int, threads: int, opencv: OpenCv | None) -> None:
    cfg = name if name.endswith(".cfg") else str(ROOT / "cfg" / f"{name}.cfg")
    with tempfile.TemporaryDirectory() as folder:
        # OpenCV takes the input size from the cfg in places, so both read one with this size in it.
        network = weighted(load(cfg, width=size, height=size))
        sized, weights = Path(folder) / "a.cfg", Path(folder) / "a.weights"
        network.plan.cfg.with_values(0, {"width": size, "height": size}).write(sized)
        save_weights(network, weights)
        answer = opencv.ask("load", sized, weights, size, threads) if opencv else "cannot: not asked"
    network.fold()
    image = torch.rand(1, network.plan.input.channels, size, size)
    ours, theirs = [], []
    for _ in range(runs):
        ours.append(statistics.median(our_seconds(network, image) for _ in range(TURN)))
        if answer.startswith("ok"):
            assert opencv
            theirs.append(statistics.median(float(opencv.ask("run")) for _ in range(TURN)))
    text = f"{Path(cfg).stem} {size}: ours {statistics.median(ours) * 1e3:.1f} ms (least {min(ours) * 1e3:.1f})"
    if theirs:
        pairs = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        text += f", OpenCV {answer[3:]} {statistics.median(theirs) * 1e3:.1f} ms (least {min(theirs) * 1e3:.1f})"
        text += f"; OpenCV / ours: {pairs:.2f} pair by pair, {min(theirs) / min(ours):.2f} least by least"
    elif opencv:
        text += f"; OpenCV cannot run it: {answer[7:150]}"
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", nargs="+", default=DEFAULT, help="cfg files, or names of files in cfg/")
    parser.add_argument("--img-size", type=int, default=416)
    parser.add_argument("--runs", type=int, default=8, help=f"turns of {TURN} passes, default 8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--opencv-python", help="Python of an environment with OpenCV 4.x")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    opencv = OpenCv(options.opencv_python) if options.opencv_python else None
    with torch.inference_mode():
        for name in options.cfg:
            compare(name, options.img_size, options.runs, options.threads, opencv)


if __name__ == "__main__":
    main()

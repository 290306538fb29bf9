"""The OpenCV side of benchmarks/inference.py; runs in an environment of its own that has OpenCV 4.x.

Protocol on stdin and stdout: `load CFG WEIGHTS SIZE THREADS` answers `ok VERSION` or `cannot REASON`; `run` answers the
seconds of one forward pass.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import cv2
import numpy as np


def load(cfg: str, weights: str, size: str, threads: str) -> tuple[Any, Any]:
    cv2.setNumThreads(int(threads))
    net = cv2.dnn.readNetFromDarknet(cfg, weights)  # type: ignore[attr-defined]  # of OpenCV 4
    image = np.random.default_rng(0).random((1, 3, int(size), int(size)), np.float32)
    return net, image


def main() -> None:
    net: Any = None
    image: Any = None
    names: Any = None
    for line in sys.stdin:
        word, *arguments = line.rstrip("\n").split("\t")
        if word == "load":
            try:
                net, image = load(*arguments)
                names = net.getUnconnectedOutLayersNames()
                net.setInput(image)
                net.forward(names)
                print(f"ok {cv2.__version__}", flush=True)
            except cv2.error as error:
                print("cannot " + " ".join(str(error).split()), flush=True)
        else:
            start = time.perf_counter()
            net.setInput(image)
            net.forward(names)
            print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()

"""Run networks in OpenCV, for benchmarks/inference.py and benchmarks/export_zoo.py.

This needs only cv2 and numpy, so that any version of OpenCV can run in its own environment. Commands are lines of words separated
by tabs; each is answered with a line:

  version
  load MODEL SIDE BATCH THREADS       load an ONNX file; answers `ok`, or the reason why not
  run PASSES                          run the loaded network; answers with the seconds of each pass
  save MODEL INPUT.npy OUTPUT.npz     run an ONNX file once and save its outputs; answers `ok`, or the reason why not
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np


class Worker:
    """Holds the network between commands."""

    def version(self) -> str:
        return str(cv2.__version__)

    def load(self, model: str, side: str, batch: str, threads: str) -> str:
        cv2.setNumThreads(int(threads))
        self._net: Any = cv2.dnn.readNetFromONNX(model)
        self._images = np.random.default_rng(0).random((int(batch), 3, int(side), int(side)), np.float32)
        self._names = self._net.getUnconnectedOutLayersNames()
        self.run("1")
        return "ok"

    def run(self, passes: str) -> str:
        seconds = []
        for _ in range(int(passes)):
            start = time.perf_counter()
            self._net.setInput(self._images)
            self._net.forward(self._names)
            seconds.append(time.perf_counter() - start)
        return " ".join(map(str, seconds))

    def save(self, model: str, source: str, target: str) -> str:
        net = cv2.dnn.readNetFromONNX(model)
        net.setInput(np.load(source), "images")
        names = list(net.getUnconnectedOutLayersNames())
        found = dict(zip(names, net.forward(names), strict=True))
        np.savez(target, **found)  # type: ignore[arg-type]
        return "ok"


def main() -> None:
    worker = Worker()
    commands: dict[str, Callable[..., str]] = {
        "version": worker.version,
        "load": worker.load,
        "run": worker.run,
        "save": worker.save,
    }
    for line in sys.stdin:
        command, *words = line.rstrip("\n").split("\t")
        try:
            answer = commands[command](*words)
        except cv2.error as error:
            answer = " ".join(str(error.err or error).split())[:300] or "refused"
        print(answer, flush=True)


if __name__ == "__main__":
    main()

"""Measure the overhead of `YOLO(...)(frame)` over the underlying pipeline: both process the same array in turns.

python benchmarks/api.py --runs 300
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cspyolo import YOLO
from inference.first_look import SAMPLES
from inference.predictor import NmsOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300, help="runs of each (default 300)")
    options = parser.parse_args()
    frame = np.asarray(cv2.imread(str(min(SAMPLES.glob("*.jpg")))), np.uint8)
    yolo = YOLO()
    model = yolo._model()
    preprocess, nms = model.preprocessing(), NmsOptions(max_det=1000)

    def bare() -> None:
        pixels, letterbox = preprocess(np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8))
        with torch.inference_mode():
            model.postprocess(model.forward(torch.from_numpy(pixels[None])), [letterbox], nms)

    ways: dict[str, Callable[[], object]] = {"pipeline": bare, "YOLO": lambda: yolo(frame)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.runs + 10):  # the first ten are a warm-up
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            if number >= 10:
                seconds[name].append(time.perf_counter() - start)
    for name, each in seconds.items():
        print(f"{name:>9}: least {1000 * min(each):.2f} ms, median {1000 * statistics.median(each):.2f} ms")
    apart = [1000 * (one - other) for one, other in zip(seconds["YOLO"], seconds["pipeline"], strict=True)]
    print(f"  YOLO above the pipeline: {statistics.median(apart):.2f} ms, median of {options.runs} pairs")


if __name__ == "__main__":
    main()

"""Runs ONNX files in OpenCV, for benchmarks/export_zoo.py; needs cv2 and numpy only, so that any version can be asked.

Each line of standard input is `model.onnx <tab> input.npy <tab> output.npz`; each answer is a line: `ok`, or the reason why not.
"""

import sys

import cv2
import numpy as np

print(cv2.__version__, flush=True)
for line in sys.stdin:
    model, source, target = line.rstrip("\n").split("\t")
    try:
        net = cv2.dnn.readNetFromONNX(model)
        net.setInput(np.load(source), "images")
        names = list(net.getUnconnectedOutLayersNames())
        found = dict(zip(names, net.forward(names), strict=True))
        np.savez(target, **found)  # type: ignore[arg-type]
        print("ok", flush=True)
    except cv2.error as error:
        print(" ".join(str(error.err or error).split())[:300] or "refused", flush=True)

"""Detect objects in a folder of images, in batches, and write a line of JSON for each image as it is finished.

python examples/batch_job.py data/samples found.jsonl
"""

from __future__ import annotations

import sys
from pathlib import Path

from cspyolo import YOLO

source, out = sys.argv[1:3]
model = YOLO()  # the shipped detector; for your own: YOLO("my.cfg", "my.weights", names="my.names")
with Path(out).open("w", encoding="utf-8") as lines:
    for result in model(source, batch=8, stream=True):
        lines.write(result.to_json() + "\n")

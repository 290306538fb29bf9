"""Twenty-six updates of a complete network by train.py, compared with the losses printed by the original.

The recording is from the original's CPU build with the five repairs listed in docs/parity.md: YOLOv3-tiny-PRN, weights
and image from tests/recipe.py, the image four times per update, no augmentation.

From the fifth update on, the losses depend on the order of float32 summation: the sixth is 16.8251 in the original and
16.8033 in double precision. Therefore the run uses one thread, and instructions that every x86-64 processor has.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from models import load
from tests.paths import REFERENCE, REPOSITORY
from tests.recipe import input_image, weights_file
from utils import cfg as cfg_text

NET = {
    "width": 224, "height": 224, "batch": 4, "subdivisions": 2, "learning_rate": 0.0005, "burn_in": 10, "max_batches": 26,
    "steps": "1000,1250", "saturation": 1, "exposure": 1, "hue": 0, "flip": 0,
}  # fmt: skip
HEAD = {
    "classes": 3, "random": 0, "jitter": 0, "scale_x_y": 1.05, "iou_normalizer": 0.07, "iou_loss": "ciou", "max_delta": 5,
}  # fmt: skip


def write_cfg(path: Path) -> None:
    cfg = cfg_text.read(REPOSITORY / "cfg" / "yolov3-tiny-prn.cfg").with_values(0, NET)
    for index, section in enumerate(cfg.sections):
        if section.name == "yolo":
            cfg = cfg.with_values(index, HEAD).with_values(index - 1, {"filters": 24})
    cfg.write(path)


def write_data(folder: Path, boxes: list[list[float]]) -> None:
    pixels = np.rint(input_image(3 * 224 * 224).reshape(3, 224, 224)[::-1].transpose(1, 2, 0) * 255)
    assert cv2.imwrite(str(folder / "image.png"), pixels.astype(np.uint8))
    (folder / "image.txt").write_text("".join(f"{int(box[4])} {' '.join(map(str, box[:4]))}\n" for box in boxes))
    (folder / "list.txt").write_text("image.png\n")
    (folder / "my.names").write_text("a\nb\nc\n")
    (folder / "my.data").write_text("classes=3\ntrain=list.txt\nnames=my.names\n")


PLAIN = {
    "OMP_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "default",
    "DNNL_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
}


@pytest.mark.slow
def test_losses_are_the_originals(tmp_path: Path) -> None:
    recording = json.loads((REFERENCE / "train_prn.json").read_text("utf-8"))
    write_cfg(tmp_path / "prn.cfg")
    write_data(tmp_path, recording["boxes"])
    (tmp_path / "start.weights").write_bytes(weights_file(load(tmp_path / "prn.cfg").tensors()))
    command = [
        sys.executable, "train.py", "--cfg", str(tmp_path / "prn.cfg"), "--data", str(tmp_path / "my.data"),
        "--weights", str(tmp_path / "start.weights"), "--project", str(tmp_path / "runs"),
        "--device", "cpu", "--workers", "0", "--no-val", "--no-plots", "--print", "darknet",
    ]  # fmt: skip
    output = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | PLAIN, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    losses = [float(loss) for loss in re.findall(r"(?m)^ ?\d+: ([\d.]+),", output)]
    assert len(losses) == len(recording["losses"]) == 26
    assert losses[:4] == pytest.approx(recording["losses"][:4], rel=5e-6)
    assert losses[:6] == pytest.approx(recording["losses"][:6], rel=1e-4)
    assert losses == pytest.approx(recording["losses"], rel=0.05)

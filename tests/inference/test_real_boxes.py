"""Real trained weights find the same boxes on real images as the original."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest

from inference.engine import ENGINES
from inference.model import open_model
from inference.predictor import Model, NmsOptions
from tests.paths import REFERENCE, shared

RESULTS = json.loads((REFERENCE / "real_boxes.json").read_text())["results"]
FOLDERS = {
    "yolo-fastest": ("yolo-fastest-1.0_coco", "yolo-fastest"),
    "yolo-fastest-1.1": ("yolo-fastest-1.1_coco", "yolo-fastest-1.1"),
    "yolo-fastest-1.1_body": ("yolo-fastest-1.1_body", "yolo-fastest-1.1_body"),
}


@cache
def detector(model: str, backend: str) -> Model:
    folder, name = FOLDERS[model]
    path = shared("weights") / folder
    return open_model(path / f"{name}.weights", cfg=path / f"{name}.cfg", backend=backend, device="cpu")


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """IoU of two boxes (left, top, right, bottom)."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    common = np.prod(np.clip(high - low, 0, None))
    return float(common / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - common))


def name_of(recorded: dict[str, Any]) -> str:
    return f"{recorded['model']}-{recorded['image_name']}-letterbox{recorded['letterbox']}-{recorded['thresh']}"


@pytest.mark.parametrize("backend", ["torch", *ENGINES])
@pytest.mark.parametrize("recorded", RESULTS, ids=name_of)
def test_every_recorded_box_is_found(recorded: dict[str, Any], backend: str) -> None:
    if backend != "torch":
        pytest.importorskip("onnx")
        pytest.importorskip(backend)
    image = cv2.imread(str(shared("datasets/pictures") / f"{recorded['image_name']}.png"))[:, :, ::-1]
    model = detector(recorded["model"], backend)
    size = (image.shape[1], image.shape[0])
    options = NmsOptions(conf=recorded["thresh"], iou=0.45)
    (found,) = model.predict([image], options, letter_box=bool(recorded["letterbox"]))
    expected = [(box["box"], box["class"], box["prob"]) for box in recorded["detections"]]
    left = [(box * 1.0, class_id, score) for box, score, class_id in found]
    for (x, y, w, h), class_id, score in expected:
        box = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * (size * 2)
        match = [
            place
            for place, (xyxy, other, ours) in enumerate(left)
            if other == class_id and overlap(box, xyxy) >= 0.99 and abs(score - ours) < 0.01
        ]
        assert match, f"class {class_id} {score:.3f} at {box.round(1)} was not found"
        left.pop(match[0])
    assert not [item for item in left if item[2] > recorded["thresh"] + 0.001], "boxes that the original does not find"

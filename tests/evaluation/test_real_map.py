"""The original's `detector map` with real trained weights on COCO128, number by number.

OpenCV's JPEG decoder and the original's differ by up to 3 levels in 1.4 % of the values. The recording contains these
differences, so that everything after the decoder is compared with the original; another test measures the effect of the decoder
on the mAP.
"""

from __future__ import annotations

import json
import lzma
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import data.batches as batches
from data.evaluation_set import EvaluationSet
from data.image import read_image
from data.sources import open_data
from evaluation.metrics.darknet import NMS_THRESH, SCORE_THRESH, DarknetMap, darknet_map
from evaluation.run import predict_images
from inference.engine import ENGINES
from inference.model import model_of
from inference.predictor import NmsOptions
from models.load import load
from tests.paths import REFERENCE, shared

RESULTS = json.loads((REFERENCE / "real_map.json").read_text())["results"]
FOLDERS = {
    "yolo-fastest": "yolo-fastest-1.0_coco",
    "yolo-fastest-1.1": "yolo-fastest-1.1_coco",
    "yolo-fastest-1.1_body": "yolo-fastest-1.1_body",
}
RUNS = [(*run, "torch") for run in sorted({(result["model"], result["letter_box"]) for result in RESULTS})]
RUNS += [(model, 0, engine) for model in FOLDERS for engine in ENGINES]


@lru_cache(maxsize=1)
def _dataset() -> EvaluationSet:
    dataset = open_data(shared("datasets/coco128/instances_train2017.json"), "train")
    return EvaluationSet(dataset=dataset, images=dataset.splits["train"], names=dataset.names, category_ids=())


@lru_cache(maxsize=1)
def _originals_pixels() -> dict[Path, NDArray[np.uint8]]:
    """Every image as the original decodes it; skips the test if this OpenCV decodes differently from the recorded one."""
    recording = np.load(REFERENCE / "coco128_decoder.npz")
    gaps = np.frombuffer(lzma.decompress(recording["gaps"].tobytes()), np.uint8)
    values = np.frombuffer(lzma.decompress(recording["values"].tobytes()), np.int8)
    ends = np.flatnonzero(gaps < 255)  # 255: the gap continues in the next byte
    places = np.cumsum(gaps.astype(np.int64))[ends] - 1
    images = {path: read_image(path) for path in sorted(_dataset().images)}
    crc = 0
    for image in images.values():
        crc = zlib.crc32(image.tobytes(), crc)
    if crc != int(recording["decoded_crc32"]):
        pytest.skip("this OpenCV decodes JPEG differently from the one that the recording was made with")
    start = 0
    for path, image in images.items():
        inside = slice(*np.searchsorted(places, [start, start + image.size]))
        flat = image.reshape(-1).copy()
        flat[places[inside] - start] = (flat[places[inside] - start].astype(np.int16) + values[inside]).astype(np.uint8)
        images[path] = flat.reshape(image.shape)
        start += image.size
    return images


def _measure(name: str, letter_box: int, backend: str = "torch") -> DarknetMap:
    folder = shared(f"weights/{FOLDERS[name]}")
    network = load(next(folder.glob("*.cfg")), next(folder.glob("*.weights")))
    model, dataset = model_of(network, torch.device("cpu"), backend=backend), _dataset()
    nms = NmsOptions(conf=SCORE_THRESH, iou=NMS_THRESH, rank_above=SCORE_THRESH)
    predictions = predict_images(model, dataset.images, [nms], letter_box=bool(letter_box))
    truths = [dataset.ground_truth(i, wh) for i, wh in zip(predictions.indices, predictions.sizes_wh, strict=True)]
    return darknet_map(predictions.found[nms], truths, model.classes)


def _check(ours: DarknetMap, result: dict[str, Any], tolerance: float) -> None:
    aps = ours.average_precisions(result["points"])
    assert ours.mean_average_precision(result["points"]) == pytest.approx(result["map"], abs=tolerance)
    np.testing.assert_allclose(aps, [each["ap"] for each in result["per_class"]], rtol=0, atol=max(tolerance, 6e-5))


@pytest.mark.parametrize(("model", "letter_box", "backend"), RUNS)
def test_equals_the_original(model: str, letter_box: int, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend != "torch":
        pytest.importorskip("onnx")
        pytest.importorskip(backend)
    pixels = _originals_pixels()
    monkeypatch.setattr(batches, "read_image", lambda path: pixels[path])
    ours = _measure(model, letter_box, backend)
    for result in RESULTS:
        if (result["model"], result["letter_box"]) != (model, letter_box):
            continue
        _check(ours, result, 1e-5)
        assert ours.true_positives.tolist() == [each["tp"] for each in result["per_class"]]
        assert ours.false_positives.tolist() == [each["fp"] for each in result["per_class"]]
        assert len(ours.ranked.scores) == pytest.approx(result["detections_count"], abs=2)
        shown = [f"{value:.2f}" for value in (ours.conf_thresh, ours.precision, ours.recall, ours.f1)]
        assert shown == result["pr"]
        assert [str(ours.tp), str(ours.fp), str(ours.fn), f"{100 * ours.average_iou:.2f}"] == result["tp_fp_fn_iou"]


def test_effect_of_the_decoder() -> None:
    ours = _measure("yolo-fastest-1.1", 0)
    for result in RESULTS:
        if (result["model"], result["letter_box"]) == ("yolo-fastest-1.1", 0):
            assert ours.mean_average_precision(result["points"]) == pytest.approx(result["map"], abs=0.002)

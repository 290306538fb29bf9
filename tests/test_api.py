"""The Python side: open_model, predict, plain data, torch.hub and the example."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from inference.model import open_model
from inference.predictor import Model, NmsOptions
from models import load
from models.weights import save_weights
from tests.paths import REPOSITORY
from tests.small_model import make_small_model
from utils.errors import InputError


def image(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


@pytest.fixture(params=[1, 3])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Model:
    cfg, weights, _ = make_small_model(tmp_path, request.param)
    return open_model(weights, cfg=cfg)


def test_boxes_are_in_pixels_of_each_image(model: Model) -> None:
    sizes = [(128, 64), (64, 64), (40, 90)]
    found = model.predict([image(*size) for size in sizes], batch_size=2)
    assert [len(each) for each in found] == [64] * 3
    for (width, height), each in zip(sizes, found, strict=True):
        corner = each.xyxy[np.lexsort(each.xyxy.T[:2])[0]]
        assert corner * ([64 / width, 64 / height] * 2) == pytest.approx([-4, -4, 12, 12], abs=1e-3)
        assert set(each.class_ids.tolist()) == {1}


def test_letter_box_is_the_cfgs_unless_given(model: Model) -> None:
    (boxed,) = model.predict([image(128, 64)], letter_box=True)
    assert np.ptp(boxed.xyxy[0, ::2]) == pytest.approx(32) and np.ptp(boxed.xyxy[0, 1::2]) == pytest.approx(32)


def test_selection_and_no_images(model: Model) -> None:
    assert model.predict([]) == []
    assert [len(each) for each in model.predict([image(64, 64)], NmsOptions(conf=0.99))] == [0]
    assert [len(each) for each in model.predict([image(64, 64)], NmsOptions(max_det=5))] == [5]


@pytest.mark.parametrize(
    "wrong", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8)]
)
def test_what_is_no_image_is_refused(model: Model, wrong: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"image 1: is .*, expected uint8 \(height, width, 3\)"):
        model.predict([image(64, 64), wrong])


@pytest.mark.parametrize("device", ["foo", "cuda:63"])
def test_a_device_that_is_not_there_is_refused(device: str, tmp_path: Path) -> None:
    cfg, weights, _ = make_small_model(tmp_path, 1)
    with pytest.raises(InputError, match=device):
        load(cfg, weights, device)
    with pytest.raises(InputError, match=device):
        open_model(weights, cfg=cfg, device=device)


def test_plain_data_has_supervisions_names(model: Model) -> None:
    (found,) = model.predict([image(64, 64)])
    plain = found.to_dict(["cat", "dog"])
    assert set(plain) == {"xyxy", "confidence", "class_id", "data"}
    assert plain["xyxy"].shape == (64, 4) and plain["confidence"].shape == plain["class_id"].shape == (64,)
    assert set(plain["data"]["class_name"].tolist()) == {"dog"}
    assert set(found.to_dict()) == {"xyxy", "confidence", "class_id"}


def test_torch_hub(tmp_path: Path) -> None:
    cfg, weights, _ = (str(path) for path in make_small_model(tmp_path))
    load = {"source": "local", "cfg": cfg, "weights": weights}
    assert len(torch.hub.load(str(REPOSITORY), "darknet", **load, width=96).plan.steps) == 3
    assert len(torch.hub.load(str(REPOSITORY), "predictor", **load).predict([image(64, 64)])[0]) == 64
    (found,) = torch.hub.load(str(REPOSITORY), "yolo", cfg, weights, source="local")(image(64, 64))
    assert len(found) == 64


@pytest.mark.parametrize("kind", ["default", "greedynms", "diounms"])
def test_a_higher_threshold_is_a_filter(kind: str, tmp_path: Path) -> None:
    """The page of serve.py relies on this: what NMS keeps above a threshold does not depend on the boxes below it."""
    cfg, weights, _ = make_small_model(tmp_path)
    cfg.write_text(cfg.read_text().replace("anchors=16,16", f"anchors=40,40\nnms_kind={kind}\nbeta_nms=0.6"))
    network, random = load(cfg), torch.Generator().manual_seed(5)
    for _, item in network.stored():
        item.tensor.data.copy_(torch.randn(item.tensor.shape, generator=random))
    save_weights(network, weights)
    noise = np.random.default_rng(5).integers(0, 256, (64, 64, 3), np.uint8)
    model = open_model(weights, cfg=cfg)
    (low,), (high,) = (model.predict([noise], NmsOptions(conf=conf)) for conf in (0.05, 0.4))
    same = low.select(low.scores > np.float32(0.4))
    assert 0 < len(high) < len(low) < 128
    assert np.array_equal(same.xyxy, high.xyxy) and np.array_equal(same.class_ids, high.class_ids)

"""From a source to results: order, failures, images in memory, constant memory, and threads that end."""

from __future__ import annotations

import threading
import weakref
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.frames import Failure, open_frames
from data.image import save_image
from inference.model import open_model
from inference.pipeline import predict_frames
from inference.predictor import Model, NmsOptions, RunStatistics
from inference.results import Result
from tests.data.test_images import write_video
from tests.small_model import make_small_model
from utils.errors import InputError

GREY = np.full((64, 96, 3), 90, np.uint8)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    cfg, weights, names = make_small_model(tmp_path)
    return open_model(weights, cfg=cfg, names=names, device="cpu")


def results(model: Model, source: Any, **options: Any) -> list[Result | Failure]:
    with closing(open_frames(source)) as frames:
        return list(predict_frames(model, frames, **options))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_results_come_in_order_with_what_could_not_be_read(model: Model, tmp_path: Path, batch_size: int) -> None:
    paths = [tmp_path / f"{name}.jpg" for name in "abcd"]
    for path in paths:
        save_image(path, GREY)
    paths[1].write_bytes(b"no image")
    statistics = RunStatistics()
    found = results(model, [str(path) for path in paths], batch_size=batch_size, statistics=statistics)
    good = [each for each in found if isinstance(each, Result)]
    assert [each.frame.path for each in good] == [str(path) for path in (paths[0], paths[2], paths[3])]
    assert [each.path for each in found if isinstance(each, Failure)] == [str(paths[1])]
    assert all(len(each.detections) == 64 and each.names == ("cat", "dog") for each in good)
    assert all(set(each.speed) == {"preprocess", "inference", "postprocess"} for each in good)
    assert (statistics.images, statistics.objects, len(statistics.failures)) == (3, {1: 192}, 1)
    assert min(statistics.milliseconds().values()) >= 0 and statistics.milliseconds()["inference"] > 0


def test_images_in_memory(model: Model, tmp_path: Path) -> None:
    save_image(tmp_path / "a.jpg", GREY)
    planes = torch.from_numpy(GREY).permute(2, 0, 1)
    source = [GREY, planes, planes / 255, tmp_path / "a.jpg"]
    found = results(model, source, nms=NmsOptions(max_det=3))
    assert [each.frame.path for each in found if isinstance(each, Result)] == [
        *(f"image{number}" for number in range(3)),
        str(tmp_path / "a.jpg"),
    ]
    for each in found[:3]:
        assert isinstance(each, Result) and np.array_equal(each.frame.image, GREY) and len(each.detections) == 3
    assert len(results(model, GREY)) == 1
    assert len(results(model, torch.stack([planes, planes]))) == len(results(model, np.stack([GREY, GREY]))) == 2


def test_a_pil_image(model: Model) -> None:
    image = pytest.importorskip("PIL.Image").fromarray(GREY[..., 0])  # grayscale: becomes RGB
    (found,) = results(model, image)
    assert isinstance(found, Result) and np.array_equal(found.frame.image, GREY)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (torch.full((3, 8, 8), 90.0), r"image 0: has values outside \[0, 1\]"),
        (torch.zeros(8, 8, 3), "image 0: is"),
        (GREY.astype(np.float32), "image 0: is float32"),
        ([GREY, 7.5], "image 1: is float"),
        (["nowhere.jpg"], "nowhere.jpg: no such image"),
    ],
)
def test_what_is_no_source(wrong: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        open_frames(wrong)


def test_frames_of_a_video_are_released(model: Model, tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", 60)
    images: list[weakref.ref[np.ndarray]] = []
    most = 0
    with closing(open_frames(str(tmp_path / "v.mp4"))) as frames:
        for result in predict_frames(model, frames):
            assert isinstance(result, Result) and result.frame.index == len(images)
            images.append(weakref.ref(result.frame.image))
            most = max(most, sum(image() is not None for image in images))
    assert len(images) == 60 and most <= 3


def test_leaving_early_ends_the_threads(model: Model, tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", 60)
    with closing(open_frames(str(tmp_path / "v.mp4"))) as frames, closing(predict_frames(model, frames)) as found:
        next(found)
    assert "prefetch" not in {thread.name for thread in threading.enumerate()}


def test_gradients_are_left_alone_between_results(model: Model) -> None:
    with closing(open_frames([GREY, GREY])) as frames:
        for _ in predict_frames(model, frames):
            assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()

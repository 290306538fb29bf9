"""From a source to results: order, failures, images in memory, constant memory use, and threads that end."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.frames import Failure, Frame, Frames, open_frames
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
def test_results_come_in_order_with_failures(model: Model, tmp_path: Path, batch_size: int) -> None:
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
def test_invalid_sources(wrong: Any, text: str) -> None:
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
    assert not any(thread.name.startswith("prefetch") for thread in threading.enumerate())


def test_gradients_are_left_alone_between_results(model: Model) -> None:
    with closing(open_frames([GREY, GREY])) as frames:
        for _ in predict_frames(model, frames):
            assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


@pytest.fixture
def parallel_model(tmp_path: Path) -> Model:
    for package in ("onnx", "openvino"):
        pytest.importorskip(package)
    cfg, weights, names = make_small_model(tmp_path)
    model = open_model(weights, cfg=cfg, names=names, device="cpu", backend="openvino")
    model.expect(None, parallel=True)
    return model


@pytest.mark.parametrize("batch_size", [1, 3])
def test_several_images_in_the_engine_at_a_time(
    model: Model, parallel_model: Model, tmp_path: Path, batch_size: int
) -> None:
    generator = np.random.default_rng(0)
    paths = [tmp_path / f"{number:02}.png" for number in range(11)]
    for path in paths:
        save_image(path, generator.integers(0, 256, (40, 50, 3), np.uint8))
    paths[4].write_bytes(b"no image")
    statistics = RunStatistics()
    start = time.perf_counter()
    found = results(parallel_model, str(tmp_path / "*.png"), batch_size=batch_size, statistics=statistics)
    seconds = time.perf_counter() - start
    good = [each for each in found if isinstance(each, Result)]
    assert [each.frame.path for each in good] == [str(path) for path in paths if path != paths[4]]
    assert [each.path for each in found if isinstance(each, Failure)] == [str(paths[4])]
    assert statistics.images == 10 and len(statistics.failures) == 1
    assert 0 < statistics.inference < seconds, "images that are in the network together share its time"
    expected = [each for each in results(model, str(tmp_path / "*.png")) if isinstance(each, Result)]
    for one, other in zip(good, expected, strict=True):
        assert np.allclose(np.sort(one.detections.scores), np.sort(other.detections.scores), atol=1e-5)


def test_only_a_few_frames_are_taken_ahead(parallel_model: Model) -> None:
    taken = 0

    def endless() -> Iterator[Frame]:
        nonlocal taken
        while True:
            taken += 1
            yield Frame(image=GREY, path=f"{taken}")

    frames = Frames("endless", endless(), total=10_000, live=False, has_video=True)
    with closing(predict_frames(parallel_model, frames)) as found:
        for number, _ in zip(range(1, 30), found, strict=False):
            assert taken - number <= 16
    assert not {thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")}


def test_a_live_frame_is_answered_before_the_next_is_taken(parallel_model: Model) -> None:
    taken = 0

    def camera() -> Iterator[Frame]:
        nonlocal taken
        for _ in range(5):
            taken += 1
            yield Frame(image=GREY, path="0", live=True)

    frames = Frames("0", camera(), total=None, live=True, has_video=True)
    for number, _ in enumerate(predict_frames(parallel_model, frames), start=1):
        assert taken == number


def test_an_error_in_the_source_ends_the_run_and_its_threads(parallel_model: Model) -> None:
    def broken() -> Iterator[Frame]:
        yield from (Frame(image=GREY, path=str(number)) for number in range(8))
        raise InputError("the source broke")

    frames = Frames("broken", broken(), total=10, live=False, has_video=True)
    with pytest.raises(InputError, match="the source broke"):
        for _ in predict_frames(parallel_model, frames):
            pass
    assert not {thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")}

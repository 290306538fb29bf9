from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.video import VideoWriter
from utils.errors import RunError


def frame(value: int, width: int = 64, height: int = 48) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def read_back(path: Path) -> tuple[int, float, tuple[int, int]]:
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.grab():
        count += 1
    size_wh = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    return count, capture.get(cv2.CAP_PROP_FPS), size_wh


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "video writer"]


@pytest.mark.parametrize("fps", [25.0, 29.97, 5.0])
def test_rate_and_number_of_frames_are_kept(fps: float, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out" / "a.mp4", fps) as video:
        for i in range(30):
            video.write(frame(i * 8))
    count, rate, size_wh = read_back(video.path)
    assert (count, size_wh) == (30, (64, 48))
    assert rate == pytest.approx(fps, abs=0.01)
    assert [path.name for path in video.path.parent.iterdir()] == ["a.mp4"]
    assert not writers()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_video_can_be_played(error: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(error), VideoWriter(tmp_path / "a.mp4", 25) as video:
        for i in range(12):
            video.write(frame(i))
        raise error
    assert read_back(tmp_path / "a.mp4")[0] == 12
    assert len(list(tmp_path.iterdir())) == 1


def test_without_a_frame_there_is_no_file(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 25):
        pass
    assert not list(tmp_path.iterdir())


def test_frames_of_another_size_are_fitted(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 25) as video:
        video.write(frame(0))
        video.write(frame(0, width=32, height=80))
    assert read_back(video.path)[0::2] == (2, (64, 48))


def test_an_unknown_codec_falls_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with VideoWriter(tmp_path / "a.mp4", 25, codec="nope!") as video:
        video.write(frame(0))
    assert read_back(video.path)[0] == 1
    assert "nope!" in caplog.text


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    video = VideoWriter(tmp_path / "file" / "a.mp4", 25)
    with pytest.raises(RunError, match="cannot be written"):
        for _ in range(100):
            video.write(frame(0))
    with pytest.raises(RunError):
        video.close()
    assert not writers()

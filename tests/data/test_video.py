from __future__ import annotations

import threading
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest

from data.video import Video, VideoWriter, video_frames
from utils.errors import InputError, RunError


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


def codec_of(path: Path) -> str:
    return int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode()


def test_h264_where_av_is_installed(tmp_path: Path) -> None:
    """4:2:0 with even sides, and the index before the frames, so that browsers can play it while loading."""
    av = pytest.importorskip("av")
    colours = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]], np.uint8)
    with VideoWriter(tmp_path / "a.mp4", 25) as video:
        for i in range(30):
            video.write(np.broadcast_to(colours[i % 3], (47, 63, 3)))
    assert codec_of(video.path) in ("avc1", "h264") and read_back(video.path) == (30, 25, (64, 48))
    data = video.path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(video.path)) as file:
        shown = [frame.to_ndarray(format="rgb24")[20, 20].astype(int) for frame in file.decode(video=0)]
        assert file.streams.video[0].pix_fmt == "yuv420p"
    assert all(np.abs(found - colours[i % 3]).max() < 12 for i, found in enumerate(shown))


def test_without_av_and_in_avi_files_the_codec_is_mp4v(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with VideoWriter(tmp_path / "a.avi", 25) as video:
        video.write(frame(0))
    assert codec_of(video.path).upper() in ("MP4V", "FMP4")
    monkeypatch.setattr("data.video.is_installed", lambda module: False)
    with VideoWriter(tmp_path / "a.mp4", 25) as video:
        video.write(frame(0))
    assert codec_of(video.path).upper() in ("MP4V", "FMP4")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full disk")
def test_h264_on_a_full_disk(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / ".a.part.mp4").symlink_to("/dev/full")
    with (
        pytest.raises(RunError, match=r"a\.mp4: video cannot be written"),
        VideoWriter(tmp_path / "a.mp4", 25) as video,
    ):
        for i in range(40):
            video.write(frame(i))
    assert not list(tmp_path.iterdir())


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


def test_a_frame_without_pixels_ends_a_damaged_video() -> None:
    class Damaged:
        def grab(self) -> bool:
            return True

        def retrieve(self) -> tuple[bool, np.ndarray]:
            return True, np.empty((0, 0, 3), np.uint8)

    video = Video(path="a.avi", fps=25, size_wh=(64, 48), frames=None)
    with pytest.raises(InputError, match=r"a\.avi: video has no frames"):
        list(video_frames(cast(cv2.VideoCapture, Damaged()), video))

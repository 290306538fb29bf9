"""Frame sources: what they find, in which order, and that no threads are left behind."""

from __future__ import annotations

import io
import logging
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from data import frames as frame_live
from data import frames as frames_module
from data.frames import RETRIES, Failure, Frame, Frames, open_frames
from data.prefetch import prefetch
from tests.data.sets import write_png
from tests.data.test_images import write_video
from utils.errors import InputError


def image(path: Path, value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.full((8, 12, 3), value, np.uint8))[1].tobytes())
    return path


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()} & {"prefetch", "live"}


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not threads()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", "[c].bmp", "deep/d.png"):
        image(tmp_path / "images" / name)
    (tmp_path / "images" / "notes.md").write_text("no image")
    write_video(tmp_path / "images" / "v.mp4", 5)
    return tmp_path / "images"


def names(source: str) -> list[str]:
    with open_frames(source) as frames:
        return [Path(item.path).name for item in frames]


def test_sources_of_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(str(folder)) == ["[c].bmp", "a.JPG", "b.png", *["v.mp4"] * 5]
    assert names(str(folder / "*.png")) == ["b.png"]
    assert names(str(folder / "**" / "*.png")) == ["b.png", "d.png"]
    assert names(str(folder / "[c].bmp")) == ["[c].bmp"]
    image(folder / "7")
    monkeypatch.chdir(folder)
    assert names("7") == ["7"], "a file named like a camera"


def test_list_of_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "list.txt").write_bytes("\ufeffb.png\r\n\r\n  deep/d.png \n".encode())
    assert names(str(folder / "list.txt")) == ["b.png", "d.png"]
    image(folder / "work" / "b.png", 200)
    monkeypatch.chdir(folder / "work")
    with open_frames(str(folder / "list.txt")) as frames:
        first = next(iter(frames))
    assert isinstance(first, Frame) and first.image[0, 0, 0] == 200, "the working folder comes first"


def test_list_with_urls_of_videos(folder: Path) -> None:
    lines = ["http://127.0.0.1:9/street.mp4?x=1", "b.png", str(folder / "v.mp4")]
    (folder / "list.txt").write_text("\n".join(lines))
    with open_frames(str(folder / "list.txt")) as frames:
        assert frames.entries == (lines[0], str(folder / "b.png"), lines[2]) and frames.has_video
        first = next(iter(frames))
    assert isinstance(first, Failure) and "video cannot be opened: not reachable" in first.reason


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://example.org/street.JPG", "is the URL of an image"),
        ("http://[example.org/street.mp4", "is not a valid URL"),
        ("rtsp://camera.example/stream1", "a camera or stream has to be the only source"),
        ("http://camera.example/video.mjpg", "a camera or stream has to be the only source"),
    ],
)
@pytest.mark.parametrize("source", ["list.txt", "-"])
def test_list_with_other_urls(source: str, url: str, text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = f"b.png\n\n {url}\nd.png\n".encode()
    (folder / "list.txt").write_bytes(content)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    place = "standard input" if source == "-" else source
    with pytest.raises(InputError, match=f"^{place}:3: {re.escape(url)}: {text}"):
        open_frames(source)


@pytest.mark.parametrize("make", ["absent", "empty folder", "no match", "empty list", "empty text"])
def test_missing_sources(make: str, tmp_path: Path) -> None:
    (tmp_path / "empty folder").mkdir()
    (tmp_path / "empty list.txt").write_text("\n\n")
    source = {"no match": "*.png", "empty list": "empty list.txt", "empty text": "nothing/"}.get(make, make)
    with pytest.raises(InputError):
        open_frames(str(tmp_path / source))


@pytest.mark.parametrize(
    "source", ["x" * 300, "20261121103200", "https://example.org/street.JPG", "file:///a/b.png", "rtsp://[camera"]
)
def test_impossible_source_names(source: str) -> None:
    with pytest.raises(InputError, match=re.escape(source)):
        open_frames(source)


@pytest.mark.parametrize(
    ("address", "live"),
    [
        ("rtsp://camera.example/h264/ch1.264", True),
        ("http://camera.example/mjpg/video.mjpg", True),
        ("http://camera.example/stream", True),
        ("https://example.org/street.mp4?x=1", False),
    ],
)
def test_addresses_of_streams_and_of_files(address: str, live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_live, "_open", lambda _: FakeCamera(1))
    monkeypatch.setattr(frames_module, "_count", lambda *_: None)
    with open_frames(address) as frames:
        assert frames.live == live


@pytest.mark.parametrize("stride", [1, 2, 3, 100])
def test_video_stride(stride: int, tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", 10)
    with open_frames(str(tmp_path / "v.mp4"), vid_stride=stride) as frames:
        items = [item for item in frames if isinstance(item, Frame)]
        assert frames.total == len(items) and not frames.live
    assert [item.index for item in items] == list(range(0, 10, stride))
    assert [item.time_s for item in items] == pytest.approx([i / 10 for i in range(0, 10, stride)])
    video = items[0].video
    assert video is not None and (video.fps, video.frames, video.size_wh) == (10, 10, (64, 48))
    assert items[0].image.shape == (48, 64, 3)


def test_stride_must_be_positive(folder: Path) -> None:
    with pytest.raises(InputError, match="vid-stride"):
        open_frames(str(folder), vid_stride=0)


def test_unreadable_files_among_good_ones(folder: Path) -> None:
    (folder / "a.JPG").write_bytes(b"no image")
    (folder / "v.mp4").write_bytes(b"no video")
    with open_frames(str(folder)) as frames:
        items = list(frames)
    assert [type(item) for item in items] == [Frame, Failure, Frame, Failure]
    assert frames.total == 3, "the video that cannot be opened is not counted"


def test_only_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with open_frames(str(tmp_path)) as frames:
        items = iter(frames)
        assert isinstance(next(items), Failure)
        with pytest.raises(InputError, match=r"a\.jpg"):
            next(items)


HEIC = b"\0\0\0\x18ftypheic" + bytes(100)


def test_images_of_phones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.heic", "b.HEIF"):
        (tmp_path / name).write_bytes(HEIC)
    with pytest.raises(InputError, match=r"^\S+: folder has no images or videos$"):
        open_frames(str(tmp_path))
    assert f"{tmp_path}: 2 HEIC images left out: convert to JPEG first" in caplog.text
    with (
        open_frames(str(tmp_path / "a.heic")) as frames,
        pytest.raises(
            InputError, match=r"^\S+a\.heic: is a HEIC image, which OpenCV cannot read; convert it to JPEG first$"
        ),
    ):
        list(frames)
    caplog.clear()
    cv2.imwrite(str(tmp_path / "c.png"), np.zeros((4, 4, 3), np.uint8))
    assert [Path(each).name for each in open_frames(str(tmp_path)).entries] == ["c.png"]
    assert "2 HEIC images left out" in caplog.text


def test_a_folder_of_folders_suggests_the_pattern(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    with pytest.raises(InputError, match=re.escape(f"'{tmp_path / '**'}' takes those of its subfolders")):
        open_frames(str(tmp_path))


def test_leaving_early(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_frames(str(folder)) as frames:
        for _ in frames:
            raise KeyboardInterrupt


class TestPrefetch:
    def test_order_and_end(self) -> None:
        assert list(prefetch(range(100), 3)) == list(range(100))

    def test_errors_keep_their_position(self) -> None:
        def items() -> Iterator[int]:
            yield 1
            raise ValueError("here")

        ahead = prefetch(items(), 3)
        assert next(ahead) == 1
        with pytest.raises(ValueError, match="here"):
            next(ahead)
        assert list(ahead) == []

    def test_reads_no_further_ahead_than_allowed_and_closes(self) -> None:
        made, closed = [], []

        def items() -> Iterator[int]:
            try:
                for i in range(1000):
                    made.append(i)
                    yield i
            finally:
                closed.append(True)

        ahead = prefetch(items(), 2)
        next(ahead)
        time.sleep(0.05)
        ahead.close()
        assert len(made) <= 4 and closed == [True]
        assert not any(thread.name.startswith("prefetch") for thread in threading.enumerate())
        assert list(ahead) == []


class FakeCamera:
    """A camera with 200 frames per second; frame i is filled with the value i. It fails after `frames` frames."""

    opened = 0

    def __init__(self, frames: int, *, works: bool = True) -> None:
        self.frames, self.works, self.read_so_far, self.released = frames, works, 0, False
        FakeCamera.opened += 1

    def isOpened(self) -> bool:
        return self.works

    def get(self, _: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        return self.grab(), np.full((4, 4, 3), (self.read_so_far - 1) % 256, np.uint8)

    def grab(self) -> bool:
        time.sleep(0.005)
        self.read_so_far += 1
        return self.read_so_far <= self.frames

    def release(self) -> None:
        self.released = True


def broken() -> list[FakeCamera]:
    """The cameras that are opened after a stream has ended for good."""
    return [FakeCamera(0) for _ in range(RETRIES)]


def live(monkeypatch: pytest.MonkeyPatch, cameras: list[FakeCamera], stride: int = 1) -> Frames:
    monkeypatch.setattr(frame_live, "RETRY_AFTER_S", 0.01)
    monkeypatch.setattr(frame_live, "_open", lambda _: cameras.pop(0))
    return open_frames("rtsp://camera.example/live", vid_stride=stride)


def test_live_returns_the_newest_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    camera, start = FakeCamera(10**6), time.monotonic()
    with live(monkeypatch, [camera]) as frames:
        assert frames.live and frames.total is None
        items = iter(frames)
        first = next(items)
        assert isinstance(first, Frame)
        while camera.read_so_far < first.index + 15:
            assert time.monotonic() < start + 60, "the camera is not read"
            time.sleep(0.01)
        later = next(items)
    assert isinstance(later, Frame) and later.index - first.index > 10, "frames in between are dropped"
    assert later.image[0, 0, 0] == later.index % 256
    assert first.time_s is not None and later.time_s is not None
    assert first.time_s < later.time_s < time.monotonic() - start


def test_live_stride(monkeypatch: pytest.MonkeyPatch) -> None:
    with live(monkeypatch, [FakeCamera(30), *broken()], stride=4) as frames:
        assert all(item.index % 4 == 0 for item in frames if isinstance(item, Frame))


def test_live_opens_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [FakeCamera(3), FakeCamera(0), FakeCamera(5), *broken()]
    with live(monkeypatch, list(made)) as frames:
        *items, last = list(frames)
    assert isinstance(items[-1], Frame) and items[-1].index == 7
    assert isinstance(last, Failure) and "the stream broke off after 8 frames" in last.reason
    assert all(camera.released for camera in made)


def test_live_without_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    with live(monkeypatch, [FakeCamera(0), *broken()]) as frames, pytest.raises(InputError, match="after 0 frames"):
        list(frames)


def test_live_waits_longer_before_each_attempt(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with live(monkeypatch, [FakeCamera(1), *broken()]) as frames:
        list(frames)
    assert [record.args[1:3] for record in caplog.records] == [(0.01 * 2**i, i + 1) for i in range(RETRIES)]


def test_live_counts_what_it_drops(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    seen = 0
    with live(monkeypatch, [FakeCamera(40), *broken()]) as frames:
        for item in frames:
            seen += isinstance(item, Frame)
            time.sleep(0.02)
    given = caplog.records[-1].args
    assert isinstance(given, tuple)
    _, read, dropped, reconnections = given
    assert (read, reconnections) == (40, RETRIES) and dropped == 40 - seen > 0


def test_live_camera_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver without a timeout must not hang the program."""
    monkeypatch.setattr(frames_module, "STUCK_S", 1)
    camera, hang = FakeCamera(10**6), threading.Event()
    with live(monkeypatch, [camera]) as frames:
        items = iter(frames)
        assert isinstance(next(items), Frame)
        monkeypatch.setattr(camera, "read", lambda: (not hang.wait(20), None))
        *_, last = items
        hang.set()
    assert isinstance(last, Failure) and "has not answered for 1 s" in last.reason


def test_live_is_stopped_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with Ctrl-C: it stops only after the camera has answered, but without an error."""
    camera, hang = FakeCamera(10**6), threading.Event()
    monkeypatch.setattr(camera, "read", lambda: (not hang.wait(20), None))
    with live(monkeypatch, [camera]) as frames:
        threading.Timer(0.2, frames.stop).start()
        begin = time.monotonic()
        assert list(frames) == [] and time.monotonic() - begin < 5
        hang.set()


def test_a_folder_is_stopped(folder: Path) -> None:
    with open_frames(str(folder)) as frames:
        items = iter(frames)
        next(items)
        frames.stop()
        assert next(items, None) is None


class Stream(BaseHTTPRequestHandler):
    """Sends JPEG images like a network camera, then stalls or closes the connection. Answers one request."""

    images: ClassVar[list[bytes]] = []
    stalls = True
    over = threading.Event()

    def do_GET(self) -> None:
        if not self.images:
            return self.send_error(503)
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for data in self.images:
            self.wfile.write(
                b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(data), data)
            )
            time.sleep(0.02)
        Stream.images = []
        if self.stalls:
            self.over.wait(20)
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a camera that sends 40 images, the last ten of them larger."""
    monkeypatch.setattr("data.video.TIMEOUT_S", 1.0)
    monkeypatch.setattr(frames_module, "RETRY_AFTER_S", 0.01)
    sizes = [(48, 64)] * 30 + [(96, 128)] * 10
    monkeypatch.setattr(
        Stream, "images", [bytes(cv2.imencode(".jpg", np.full((*wh, 3), 90, np.uint8))[1]) for wh in sizes]
    )
    monkeypatch.setattr(Stream, "over", threading.Event())
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/live.mjpg"
    Stream.over.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("stalls", [True, False])
def test_live_stream_that_stalls_or_ends(camera: str, stalls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stream, "stalls", stalls)
    with open_frames(camera) as frames:
        *items, last = list(frames)
    sizes = [item.size_wh for item in items if isinstance(item, Frame)]
    assert len(sizes) > 20 and set(sizes) == {(64, 48)}, "OpenCV fits later frames to the size of the first"
    assert isinstance(last, Failure) and f"{RETRIES} attempts" in last.reason


def test_live_camera_that_comes_back_with_another_size(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    larger = FakeCamera(3)
    monkeypatch.setattr(larger, "read", lambda: (larger.grab(), np.zeros((6, 8, 3), np.uint8)))
    with live(monkeypatch, [FakeCamera(3), larger, *broken()]) as frames:
        items = [item for item in frames if isinstance(item, Frame)]
    assert items[0].video is not None and items[0].video.size_wh == items[0].size_wh == (4, 4)
    assert items[-1].video is not None and items[-1].video.size_wh == items[-1].size_wh == (8, 6)
    assert "frames of 8x6 pixels follow those of 4x4" in caplog.text


def test_no_such_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="stream cannot be opened"):
        live(monkeypatch, [FakeCamera(0, works=False)])
    with pytest.raises(InputError, match="camera cannot be opened"):
        monkeypatch.setattr(frame_live, "_open", lambda _: FakeCamera(0, works=False))
        open_frames("97")


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "CMYK", "I;16"])
def test_pil_images_of_every_mode(mode: str) -> None:
    """A white square on black has the same pixels in every mode."""
    pil = pytest.importorskip("PIL.Image")
    square = np.zeros((6, 8), np.uint8)
    square[2:4, 3:5] = 255
    deep = pil.fromarray(square.astype(np.uint16) * 257)
    given = deep if mode == "I;16" else pil.fromarray(square).convert("RGB").convert(mode)
    assert given.mode == mode
    with open_frames(given) as frames:
        (item,) = frames
    assert isinstance(item, Frame) and np.array_equal(item.image, np.repeat(square[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pil_images_of_unknown_range_are_refused(mode: str) -> None:
    pil = pytest.importorskip("PIL.Image")
    with pytest.raises(InputError, match=f"image 0: is a PIL image of mode {mode}"):
        open_frames(pil.new(mode, (8, 6)))


def test_an_empty_name_is_not_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match="source: is empty"):
        open_frames("")


def test_an_unreachable_address() -> None:
    with pytest.raises(InputError, match="not reachable"), open_frames("http://127.0.0.1:1/x.mp4") as frames:
        list(frames)


@pytest.mark.parametrize("pattern", ["", "*.png"])
def test_a_link_to_a_missing_file_is_a_failure(pattern: str, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", (8, 8))
    (tmp_path / "b.png").symlink_to(tmp_path / "moved.png")
    first, second = open_frames(str(tmp_path / pattern))
    assert isinstance(first, Frame) and isinstance(second, Failure)
    assert second.reason == f"{tmp_path / 'b.png'}: no such image"

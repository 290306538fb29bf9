"""Processes that decode uploads: what they reject, and what happens when they die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.image import read_image
from serving import decoder
from serving.decoder import DecodedFrame, Decoders, End, UnknownKind
from tests.paths import REPOSITORY
from utils.errors import InputError, RunError

SAMPLES = REPOSITORY / "data" / "samples"
IMAGE, CLIP = SAMPLES / "scene1.jpg", SAMPLES / "scenes.mp4"


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    found = Decoders(1)
    yield found
    found.close()


def one(decoders: Decoders, path: Path) -> DecodedFrame:
    (frame,) = decoders.read(path, 1)
    assert isinstance(frame, DecodedFrame)
    return frame


def test_pixels_equal_those_decoded_in_this_process(decoders: Decoders) -> None:
    frame = one(decoders, IMAGE)
    np.testing.assert_array_equal(frame.image, read_image(IMAGE))
    assert (frame.index, frame.time_s) == (0, None)


def test_a_video_and_its_limit(decoders: Decoders) -> None:
    *frames, end = decoders.read(CLIP, 3)
    assert end == End(complete=False) and [each.index for each in frames] == [0, 1, 2]
    assert frames[2].time_s == pytest.approx(2 / 15)
    *frames, end = decoders.read(CLIP, 1000)
    assert end == End(complete=True) and len(frames) == 75


def test_a_video_in_use_does_not_keep_others_waiting(decoders: Decoders) -> None:
    video = decoders.read(CLIP, 1000)
    next(video)
    one(decoders, IMAGE)
    assert len(decoders.pids) == 2
    video.close()  # ends its process
    assert len(decoders.pids) == 1
    one(decoders, IMAGE)


def test_a_reader_that_is_dropped_late_leaves_the_process_alone(decoders: Decoders) -> None:
    reading = decoders.read(IMAGE, 1)
    next(reading)  # the process is free from here on
    video = decoders.read(CLIP, 1000)
    next(video)
    reading.close()
    assert sum(1 for _ in video) == 75


def bad_decoders(monkeypatch: pytest.MonkeyPatch, instead: str) -> None:
    """Make processes that start from now on do something else instead of decoding, until `monkeypatch.undo`."""
    code = f"import os, time; from serving import decoder; decoder._decode = lambda *_: {instead}; decoder.work()"
    monkeypatch.setattr(decoder, "_MAIN", "import sys; sys.path[0] = {folder!r}; '{module}'; " + code)


@pytest.mark.parametrize("instead", ["os.kill(os.getpid(), 11)", "os.kill(os.getpid(), 9)", "os._exit(0)", "1 / 0"])
def test_a_crash_costs_one_upload(monkeypatch: pytest.MonkeyPatch, instead: str) -> None:
    bad_decoders(monkeypatch, instead)
    decoders = Decoders(1)
    monkeypatch.undo()
    pids = decoders.pids
    with pytest.raises(InputError, match="upload: crashes its decoder, or needs more than 2 GB"):
        one(decoders, IMAGE)
    one(decoders, IMAGE)
    assert len(decoders.pids) == 1 and decoders.pids != pids
    decoders.close()


def test_an_upload_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    bad_decoders(monkeypatch, "time.sleep(60)")
    decoders = Decoders(1)
    monkeypatch.undo()
    monkeypatch.setattr(decoder, "TIME_S", 0.3)
    with pytest.raises(InputError, match=r"upload: takes longer than 0\.3 s to decode"):
        one(decoders, IMAGE)
    monkeypatch.undo()
    one(decoders, IMAGE)
    decoders.close()


def test_a_process_that_died_while_it_was_idle_is_replaced(decoders: Decoders) -> None:
    os.kill(decoders.pids[0], signal.SIGKILL)
    time.sleep(0.1)
    one(decoders, IMAGE)


def test_decoding_goes_on_when_processes_start_again(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    os.kill(decoders.pids[0], signal.SIGKILL)
    time.sleep(0.1)
    monkeypatch.setattr(decoder, "_MAIN", "raise SystemExit(3)  # {folder} {module}")
    with pytest.raises(RunError, match=r"failed to start \(exit code 3\)"):
        one(decoders, IMAGE)  # raised after several attempts
    monkeypatch.undo()
    one(decoders, IMAGE)


def test_processes_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "_MAIN", "raise SystemExit(3)  # {folder} {module}")
    with pytest.raises(RunError, match=r"failed to start \(exit code 3\)"):
        Decoders(1)


def png_of(width: int, height: int) -> bytes:
    data = bytearray(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1])
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("content", "kind", "text"),
    [
        (b"hello there, this is text", UnknownKind, "expected an image"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", UnknownKind, "expected an image"),
        (b"II*\0" + bytes(60), UnknownKind, "expected an image"),
        (b"\0\0\0\x18ftypheic" + bytes(100), UnknownKind, "upload: is a HEIC image"),
        (png_of(7072, 7072), InputError, "7072x7072 pixels, expected at most 50,000,000"),
        (b"GIF89a\x08\0\x08\0\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x4c\x01\0;", InputError, "upload: image"),
        (IMAGE.read_bytes()[:5000], InputError, "upload: image is damaged: the JPEG file is truncated"),
        (CLIP.read_bytes()[:3000], InputError, "upload: video cannot be opened"),
        (b"", InputError, "the file is empty"),
    ],
)
def test_rejected_uploads(
    decoders: Decoders, tmp_path: Path, content: bytes, kind: type[InputError], text: str
) -> None:
    (pid,) = decoders.pids
    (tmp_path / "upload").write_bytes(content)
    with pytest.raises(kind, match=text) as caught:
        one(decoders, tmp_path / "upload")
    assert str(tmp_path) not in str(caught.value) and type(caught.value) is kind
    assert decoders.pids == [pid]  # the same process continues


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory work on Linux only")
@pytest.mark.parametrize(
    ("attempt", "error"),
    [("bytearray(3 << 30)", "MemoryError"), ("Path(sys.argv[1]).write_text('x')", "File too large")],
)
def test_limits_of_a_process(tmp_path: Path, attempt: str, error: str) -> None:
    code = f"import sys; from pathlib import Path; from serving.decoder import restrict; restrict(); {attempt}"
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode and error in ended.stderr


def test_decoding_does_not_import_pytorch() -> None:
    code = "import sys, serving.decoder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0

"""Video files: reading frame by frame, and writing in a thread, with a temporary name until complete."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from data.image import Image
from utils.background import Consumer
from utils.errors import InputError, RunError
from utils.files import is_file, publish
from utils.packages import is_installed

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mpe", ".m2v", ".ts", ".mts", ".m2ts"}
    | {".wmv", ".asf", ".flv", ".3gp", ".3g2", ".ogv", ".vob", ".h264", ".h265", ".hevc", ".264", ".265"}
    | {".mjpeg", ".mjpg", ".y4m"}
)
DEFAULT_FPS = 25.0
TIMEOUT_S = 10.0  # for the next frame of a URL
_MAX_READ_FPS = 1000.0  # a larger value is a time base that the container reports as a frame rate
_STALLED = 0.9  # fraction of the timeout; a video that ends after waiting longer has stalled
_MISSING = 0.02
"""Fraction of announced frames that may be missing: most containers only estimate their number."""

DEFAULT_CODEC = "mp4v"
"""Default codec without the package av; with it, the default is H.264, which browsers play."""
_H264_CODECS, _H264_FILES = ("h264", "avc1", "x264"), (".mp4", ".m4v", ".mov", ".mkv")
_FALLBACKS = ((DEFAULT_CODEC, ".mp4"), ("avc1", ".mp4"), ("MJPG", ".avi"))
_QUEUED = 8  # frames that wait for the encoder at most
_MIN_FPS, _MAX_FPS = 0.1, 240.0  # accepted by players and containers


@dataclass(frozen=True, kw_only=True)
class Video:
    """Properties of a video or stream.

    path: file, URL or camera number.
    fps: frames per second; DEFAULT_FPS if unknown.
    size_wh: in pixels.
    frames: number of frames according to the container; None if unknown.
    """

    path: str
    fps: float
    size_wh: tuple[int, int]
    frames: int | None


def describe(capture: cv2.VideoCapture, path: str) -> Video:
    """Return the properties of an open capture."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    count = float(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    return Video(
        path=path,
        fps=fps if math.isfinite(fps) and 0 < fps <= _MAX_READ_FPS else DEFAULT_FPS,
        size_wh=(int(width), int(height)),
        frames=int(count) if math.isfinite(count) and 0 < count < 1e9 else None,
    )


@contextmanager
def open_video(path: str) -> Iterator[tuple[cv2.VideoCapture, Video]]:
    """Open a file or URL; yield the capture and its properties. Raises InputError if it cannot be opened."""
    if "://" not in path:
        if not is_file(path):
            raise InputError(f"{path}: no such video")
        if Path(path).stat().st_size == 0:
            raise InputError(f"{path}: video is damaged: the file is empty")
    capture = open_capture(path) if "://" in path else cv2.VideoCapture(path)
    try:
        if not capture.isOpened():
            what = "not reachable, " if "://" in path else ""
            raise InputError(f"{path}: video cannot be opened: {what}damaged, truncated or of an unsupported format")
        yield capture, describe(capture, path)
    finally:
        capture.release()


def open_capture(url: str) -> cv2.VideoCapture:
    """Open a URL, with TIMEOUT_S as the timeout for opening and reading."""
    limit = int(1000 * TIMEOUT_S)
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit]
    return cv2.VideoCapture(url, cv2.CAP_FFMPEG, timeouts)


def video_frames(capture: cv2.VideoCapture, video: Video, stride: int = 1) -> Iterator[tuple[int, Image]]:
    """Yield (index, uint8 (h, w, 3) RGB) of every `stride`-th frame, counted from 0.

    Raises InputError at the end if there was no frame, if many of the announced frames are missing, or if a URL stalls.
    """
    number, waited = 0, 0.0
    while True:
        begun = time.monotonic()
        if not capture.grab():
            waited = time.monotonic() - begun
            break
        if number % stride == 0:
            good, bgr = capture.retrieve()
            if not good or not bgr.size:
                break
            yield number, np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
        number += 1
    if "://" in video.path and waited > _STALLED * TIMEOUT_S:
        raise InputError(f"{video.path}: video stalled: no data for {waited:.0f} s after {number} frames")
    if number == 0:
        raise InputError(f"{video.path}: video has no frames")
    if video.frames is not None and video.frames - number > max(1, video.frames * _MISSING):
        raise InputError(f"{video.path}: video is truncated: only {number} of {video.frames} frames could be read")


class VideoWriter:
    """Context manager that writes a video file with a constant frame rate and the size of the first frame.

        with VideoWriter("runs/detect/exp/street.mp4", fps=25) as video:
            video.write(image)
        video.path  # the file written

    codec: four letters; None: H.264 with the package av, else DEFAULT_CODEC.

    Encoding runs in a thread. When the block ends, even by an error or Ctrl-C, the frames so far form a complete file;
    without frames there is no file. If the codec is not available, another one is used, with the suffix of its container.
    `write` and `close` raise RunError if the video cannot be written.
    """

    def __init__(self, path: str | Path, fps: float, codec: str | None = None) -> None:
        self.path = Path(path)
        self.frames = 0
        self._fps = min(max(fps, _MIN_FPS), _MAX_FPS)
        self._codec = codec or _usual_codec(self.path)
        self._thread: Consumer[Image] | None = Consumer(self._encode, _QUEUED, "video writer")

    def write(self, image: Image) -> None:
        """Add a frame, uint8 (height, width, 3) RGB, which the caller must not modify afterwards."""
        assert self._thread is not None, "the video is closed"
        self._thread.put(image)
        self.frames += 1

    def close(self) -> None:
        """Write the queued frames and complete the file."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            thread.finish()
            if thread.error is not None:
                raise thread.error

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _encode(self, images: Iterator[Image]) -> None:
        try:
            if (first := next(images, None)) is not None:
                self._write_all(first, images)
        except (cv2.error, OSError) as error:
            raise RunError(f"{self.path}: video cannot be written: {error}") from error

    def _write_all(self, first: Image, others: Iterator[Image]) -> None:
        size_wh = (first.shape[1], first.shape[0])
        writer, temporary = self._open(size_wh)
        resized = False
        try:
            for image in chain([first], others):
                if (image.shape[1], image.shape[0]) != size_wh:
                    if not resized:
                        logger.warning("%s: the frame size changes, the video stays %dx%d", self.path, *size_wh)
                    resized = True
                    image = np.asarray(cv2.resize(image, size_wh), np.uint8)
                writer.write(image)
            writer.release()
            if (readable := readable_frames(temporary)) < max(1, self.frames * (1 - _MISSING) - 1):
                raise RunError(
                    f"{self.path}: video cannot be written: {readable} of {self.frames} frames are readable, is the disk full?"
                )
            publish(temporary, self.path)
        finally:
            writer.release()
            temporary.unlink(missing_ok=True)

    def _open(self, size_wh: tuple[int, int]) -> tuple[_Encoder, Path]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        wanted = (self._codec, self.path.suffix or ".mp4")
        for codec, suffix in dict.fromkeys((wanted, *_FALLBACKS)):
            temporary = self.path.with_name(f".{self.path.stem}.part{suffix}")  # the suffix selects the container
            encoder = _open_encoder(temporary, codec, self._fps, size_wh)
            if encoder is not None:
                self.path = self.path.with_suffix(suffix)
                if (codec, suffix) != wanted:
                    logger.warning("%s: codec %s is not available, using %s", self.path, self._codec, codec)
                return encoder, temporary
            temporary.unlink(missing_ok=True)
        raise RunError(f"{self.path}: video cannot be written: no codec supports {size_wh[0]}x{size_wh[1]} pixels")


class _Encoder(Protocol):
    """An encoder of RGB images of one size; `release` completes the file and may be called again."""

    def write(self, image: Image) -> None: ...

    def release(self) -> None: ...


def _usual_codec(path: Path) -> str:
    has_h264 = (path.suffix.lower() or ".mp4") in _H264_FILES and is_installed("av")
    return _H264_CODECS[0] if has_h264 else DEFAULT_CODEC


def _open_encoder(path: Path, codec: str, fps: float, size_wh: tuple[int, int]) -> _Encoder | None:
    """Return an encoder for `path`, whose suffix selects the container; None if the codec is not available for it."""
    if codec.lower() in _H264_CODECS and path.suffix.lower() in _H264_FILES and is_installed("av"):
        import av

        if "libx264" in av.codecs_available:
            return _H264(path, fps, size_wh)
    fourcc = cv2.VideoWriter.fourcc(*codec) if len(codec) == 4 else -1
    writer = cv2.VideoWriter(str(path), fourcc, fps, size_wh)
    if writer.isOpened():
        return _OpenCv(writer)
    writer.release()
    return None


class _OpenCv:
    def __init__(self, writer: cv2.VideoWriter) -> None:
        self._writer = writer

    def write(self, image: Image) -> None:
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def release(self) -> None:
        self._writer.release()


class _H264:
    """H.264 as browsers play it: 4:2:0, even sides (by repeating the last row or column), the index at the start."""

    def __init__(self, path: Path, fps: float, size_wh: tuple[int, int]) -> None:
        import av

        self._frame, self._error = av.VideoFrame, av.FFmpegError
        self._file = av.open(str(path), "w", options={"movflags": "+faststart"})
        self._stream = self._file.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        self._stream.width, self._stream.height = (side + side % 2 for side in size_wh)
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "20", "preset": "veryfast"}
        self._open = True

    def write(self, image: Image) -> None:
        height, width, _ = image.shape
        even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), "edge") if height % 2 or width % 2 else image
        self._encode(self._frame.from_ndarray(np.ascontiguousarray(even), "rgb24"))

    def release(self) -> None:
        if self._open:
            self._encode(None)
            self._open = False
            self._file.close()

    def _encode(self, frame: Any) -> None:
        try:
            self._file.mux(self._stream.encode(frame))
        except self._error as error:
            self._open = False  # PyAV crashes on writing to a file without a header
            self._file.close()
            raise OSError(str(error)) from error


def readable_frames(path: Path) -> int:
    """Return the number of frames of a video, from its container or by decoding; 0 if the first cannot be read."""
    try:
        with open_video(str(path)) as (capture, video):
            if not capture.grab():
                return 0
            return video.frames or 1 + sum(1 for _ in iter(capture.grab, False))
    except InputError:
        return 0

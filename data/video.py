"""Video files: reading frame by frame, and writing in a thread, under a temporary name until complete."""

from __future__ import annotations

import logging
import math
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from data.image import Image
from utils.errors import InputError, RunError

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mpe", ".m2v", ".ts", ".mts", ".m2ts"}
    | {".wmv", ".asf", ".flv", ".3gp", ".3g2", ".ogv", ".vob", ".h264", ".h265", ".hevc", ".264", ".265"}
    | {".mjpeg", ".mjpg", ".y4m"}
)
DEFAULT_FPS = 25.0
_MAX_READ_FPS = 1000.0  # a larger value is a time base that the container reports as a frame rate
_MISSING = 0.02
"""Fraction of the frames that a container may announce in excess: most only estimate their number."""

DEFAULT_CODEC = "mp4v"
_FALLBACKS = ((DEFAULT_CODEC, ".mp4"), ("avc1", ".mp4"), ("MJPG", ".avi"))
_QUEUED = 8  # frames between the caller and the encoder
_MIN_FPS, _MAX_FPS = 0.1, 240.0  # what players and containers accept


@dataclass(frozen=True, kw_only=True)
class Video:
    """path: file, URL or camera number. fps: frames per second, DEFAULT_FPS if unknown. size_wh: in pixels.

    frames: number of frames that the container announces; None if unknown.
    """

    path: str
    fps: float
    size_wh: tuple[int, int]
    frames: int | None


def describe(capture: cv2.VideoCapture, path: str) -> Video:
    """Properties of an open capture."""
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
    """A capture of a file or URL, and its properties. Raises InputError if it cannot be opened."""
    if "://" not in path:
        if not Path(path).is_file():
            raise InputError(f"{path}: no such video")
        if Path(path).stat().st_size == 0:
            raise InputError(f"{path}: video is damaged: the file is empty")
    capture = cv2.VideoCapture(path)
    try:
        if not capture.isOpened():
            raise InputError(f"{path}: video cannot be opened: damaged, truncated or of an unsupported format")
        yield capture, describe(capture, path)
    finally:
        capture.release()


def video_frames(capture: cv2.VideoCapture, video: Video, stride: int = 1) -> Iterator[tuple[int, Image]]:
    """(index, uint8 (h, w, 3) RGB) of every `stride`-th frame, counted from 0.

    Raises InputError after the last frame if there was none, or if many of the announced frames are missing.
    """
    number = 0
    while capture.grab():
        if number % stride == 0:
            good, bgr = capture.retrieve()
            if not good:
                break
            yield number, np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
        number += 1
    if number == 0:
        raise InputError(f"{video.path}: video has no frames")
    if video.frames is not None and video.frames - number > max(1, video.frames * _MISSING):
        raise InputError(f"{video.path}: video is truncated: only {number} of {video.frames} frames could be read")


class VideoWriter:
    """Writes frames to a video file of constant frame rate and the first frame's size.

        with VideoWriter("runs/detect/exp/street.mp4", fps=25) as video:
            video.write(image)
        video.path  # the file written

    Encoding runs in a thread. When the block ends, even by an error or Ctrl-C, the frames so far are a complete file;
    without frames there is no file. If the codec is not available, another one and the suffix of its container are
    used. `write` and `close` raise RunError if the video cannot be written.
    """

    def __init__(self, path: str | Path, fps: float, codec: str | None = None) -> None:
        self.path = Path(path)
        self.frames = 0
        self._fps = min(max(fps, _MIN_FPS), _MAX_FPS)
        self._codec = codec or DEFAULT_CODEC
        self._queue: queue.Queue[Image | None] = queue.Queue(_QUEUED)
        self._error: RunError | None = None
        self._thread: threading.Thread | None = threading.Thread(target=self._run, name="video writer", daemon=True)
        self._thread.start()

    def write(self, image: Image) -> None:
        """Add a frame, uint8 (height, width, 3) RGB, which the caller must not change any more."""
        assert self._thread is not None, "the video is closed"
        if self._error is not None:
            raise self._error
        self._queue.put(image)
        self.frames += 1

    def close(self) -> None:
        """Write the queued frames and complete the file."""
        if self._thread is None:
            return
        self._queue.put(None)
        self._thread.join()
        self._thread = None
        if self._error is not None:
            raise self._error

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        first = self._queue.get()
        if first is None:
            return
        try:
            self._encode(first)
        except (cv2.error, OSError) as error:
            self._error = RunError(f"{self.path}: video cannot be written: {error}")
        except RunError as error:
            self._error = error
        if self._error is not None:
            while self._queue.get() is not None:  # so that the caller does not block on a full queue
                pass

    def _encode(self, first: Image) -> None:
        size_wh = (first.shape[1], first.shape[0])
        writer, temporary = self._open(size_wh)
        try:
            image: Image | None = first
            while image is not None:
                if (image.shape[1], image.shape[0]) != size_wh:  # a stream may change its size
                    image = np.asarray(cv2.resize(image, size_wh), np.uint8)
                writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
                image = self._queue.get()
            writer.release()
            if temporary.stat().st_size == 0:
                raise RunError(f"{self.path}: video cannot be written: the file is empty, is the disk full?")
            temporary.replace(self.path)
        finally:
            writer.release()
            temporary.unlink(missing_ok=True)

    def _open(self, size_wh: tuple[int, int]) -> tuple[cv2.VideoWriter, Path]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        wanted = (self._codec, self.path.suffix or ".mp4")
        for codec, suffix in dict.fromkeys((wanted, *_FALLBACKS)):
            temporary = self.path.with_name(f".{self.path.stem}.part{suffix}")  # the suffix chooses the container
            fourcc = cv2.VideoWriter.fourcc(*codec) if len(codec) == 4 else -1
            writer = cv2.VideoWriter(str(temporary), fourcc, self._fps, size_wh)
            if writer.isOpened():
                self.path = self.path.with_suffix(suffix)
                if (codec, suffix) != wanted:
                    logger.warning("%s: codec %s is not available, using %s", self.path, self._codec, codec)
                return writer, temporary
            writer.release()
            temporary.unlink(missing_ok=True)
        raise RunError(f"{self.path}: video cannot be written: no codec supports {size_wh[0]}x{size_wh[1]} pixels")

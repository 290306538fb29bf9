"""Writing a video in a thread, under a temporary name until it is complete."""

from __future__ import annotations

import logging
import queue
import threading
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.errors import RunError

logger = logging.getLogger(__name__)

DEFAULT_CODEC = "mp4v"
_FALLBACKS = ((DEFAULT_CODEC, ".mp4"), ("avc1", ".mp4"), ("MJPG", ".avi"))
_WAITING = 8  # frames between the caller and the encoder
_LEAST_FPS, _MOST_FPS = 0.1, 240.0  # what players and containers take


class VideoWriter:
    """A video file of every frame given, at a constant rate; the size is the first frame's.

        with VideoWriter("runs/detect/exp/street.mp4", fps=25) as video:
            video.write(image)
        video.path  # where it is

    Encoding runs in a thread. When the block ends, by Ctrl-C or an error too, what was written so far becomes a
    complete file under its name; without any frame there is none. The suffix changes to the container's when the
    wanted codec is not to be had. Raises RunError from `write` or `close` if nothing can be written.
    """

    def __init__(self, path: str | Path, fps: float, codec: str = DEFAULT_CODEC) -> None:
        self.path = Path(path)
        self.frames = 0
        self._fps = min(max(fps, _LEAST_FPS), _MOST_FPS)
        self._codec = codec
        self._queue: queue.Queue[NDArray[np.uint8] | None] = queue.Queue(_WAITING)
        self._error: RunError | None = None
        self._thread: threading.Thread | None = threading.Thread(target=self._run, name="video writer", daemon=True)
        self._thread.start()

    def write(self, image: NDArray[np.uint8]) -> None:
        """Add a frame: uint8 (height, width, 3) RGB, left alone by the caller from now on."""
        assert self._thread is not None, "the video is closed"
        if self._error is not None:
            raise self._error
        self._queue.put(image)
        self.frames += 1

    def close(self) -> None:
        """Write what waits, finish the file and give it its name."""
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
            while self._queue.get() is not None:  # the caller must not wait for room
                pass

    def _encode(self, first: NDArray[np.uint8]) -> None:
        size_wh = (first.shape[1], first.shape[0])
        writer, temporary = self._open(size_wh)
        try:
            image: NDArray[np.uint8] | None = first
            while image is not None:
                if (image.shape[1], image.shape[0]) != size_wh:  # a stream may change its size on the way
                    image = np.asarray(cv2.resize(image, size_wh), np.uint8)
                writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
                image = self._queue.get()
            writer.release()
            if temporary.stat().st_size == 0:
                raise RunError(f"{self.path}: video cannot be written: the file stays empty, is the disk full?")
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
                    logger.warning("%s: codec %s cannot be used, %s is instead", self.path, self._codec, codec)
                return writer, temporary
            writer.release()
            temporary.unlink(missing_ok=True)
        raise RunError(f"{self.path}: video cannot be written: no codec works for {size_wh[0]}x{size_wh[1]} pixels")

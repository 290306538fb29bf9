"""Reading video files frame by frame."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.errors import InputError

DEFAULT_FPS = 25.0
_FASTEST_FPS = 1000.0  # beyond it the number is a time base that was mistaken for a rate
_MISSING = 0.02
"""Part of the frames a container may promise too many: most only estimate."""


@dataclass(frozen=True, kw_only=True)
class Video:
    """path: file, stream or camera number. fps: frames a second, DEFAULT_FPS if it does not say. size_wh: pixels.

    frames: how many it says it has; None if it does not say.
    """

    path: str
    fps: float
    size_wh: tuple[int, int]
    frames: int | None


def describe(capture: cv2.VideoCapture, path: str) -> Video:
    """What an open capture says about itself."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    count = float(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    return Video(
        path=path,
        fps=fps if math.isfinite(fps) and 0 < fps <= _FASTEST_FPS else DEFAULT_FPS,
        size_wh=(int(width), int(height)),
        frames=int(count) if math.isfinite(count) and 0 < count < 1e9 else None,
    )


@contextmanager
def open_video(path: str) -> Iterator[tuple[cv2.VideoCapture, Video]]:
    """Raises InputError when it cannot be opened. `path` may be a URL."""
    if "://" not in path:
        if not Path(path).is_file():
            raise InputError(f"{path}: no such video")
        if Path(path).stat().st_size == 0:
            raise InputError(f"{path}: video is damaged: the file is empty")
    capture = cv2.VideoCapture(path)
    try:
        if not capture.isOpened():
            raise InputError(f"{path}: video cannot be opened: damaged, cut off, or of an unknown kind")
        yield capture, describe(capture, path)
    finally:
        capture.release()


def video_frames(capture: cv2.VideoCapture, video: Video, stride: int = 1) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """(number, uint8 (h, w, 3) RGB) of every `stride`th frame, from 0.

    Raises InputError after the last frame when there was none or when many of those promised are missing.
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
        raise InputError(f"{video.path}: video is cut off: {number} of {video.frames} frames could be read")

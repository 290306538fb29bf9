"""Where detection gets its pictures from: one iterator over files, folders, lists, videos, cameras and streams.

    with open_frames("street.mp4") as frames:
        for item in frames:
            if isinstance(item, Failure): ...   # reported and skipped
            else: item.picture, item.index, item.time_s, item.video

Files are decoded in a thread ahead of the reader. A camera or a stream gives its newest frame, so a slow reader
sees fewer frames and never old ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import urlparse

import cv2
import numpy as np
from numpy.typing import NDArray

from data.frame_files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, find_files, is_video
from data.frame_live import LiveReader
from data.image import read_image
from data.prefetch import Prefetch
from data.video import Video, open_video, video_frames
from utils.errors import InputError

_AHEAD = 4  # decoded pictures that wait for the reader
_LAST_CAMERA = 2**31 - 1
_ENDLESS = frozenset({".mjpg", ".mjpeg"})  # what network cameras call their stream
_OF_FILES = frozenset({"http", "https", "ftp", "file"})  # schemes that deliver files, not only streams
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture. picture: uint8 (height, width, 3) RGB. path: the file, camera or stream it comes from.

    index: number of the frame in its video or stream, from 0; 0 for a picture file. time_s: seconds from its start.
    video: what is known of the video or stream; None for a picture file.
    """

    picture: NDArray[np.uint8]
    path: str
    index: int = 0
    time_s: float = 0.0
    video: Video | None = None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A picture or video that could not be read, or not to its end; `reason` is a whole sentence with the place."""

    path: str
    reason: str


class Frames:
    """Iterable once over Frame and Failure. total: how many frames are expected, None where nobody knows.

    live: a camera or a stream. Iterating raises InputError after the last item when there was no frame at all.
    """

    def __init__(self, source: str, items: Iterator[Frame | Failure], *, total: int | None, live: bool) -> None:
        self.source, self.total, self.live = source, total, live
        self._items = items

    def __iter__(self) -> Iterator[Frame | Failure]:
        anything, reason = False, "it has no frames"
        for item in self._items:
            if isinstance(item, Frame):
                anything = True
            else:
                reason = item.reason
            yield item
        if not anything:
            raise InputError(f"{self.source}: nothing in it could be read: {reason}")

    def __enter__(self) -> Frames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and let go of file or camera."""
        if isinstance(self._items, (Prefetch, LiveFrames)):
            self._items.close()


def open_frames(source: str, *, vid_stride: int = 1) -> Frames:
    """Frames of `source`: picture, video, folder, glob pattern, `.txt` list, camera number or URL.

    vid_stride: every how many frames of a video or stream one is taken. Pictures are turned upright by their EXIF
    orientation. Raises InputError when there is no such source or nothing in it.
    """
    if vid_stride < 1:
        raise InputError(f"vid-stride: cannot be {vid_stride}, expected 1 or more")
    _silence_opencv()
    if source.isascii() and source.isdigit() and not Path(source).exists():
        if int(source) > _LAST_CAMERA:
            raise InputError(f"{source}: no such file or folder, and no number of a camera")
        return Frames(source, LiveFrames(int(source), source, vid_stride), total=None, live=True)
    if _URL.match(source):
        if _is_live(source):
            return Frames(source, LiveFrames(source, source, vid_stride), total=None, live=True)
        files = [source]
    else:
        files = [str(path) for path in find_files(source)]
    return Frames(source, Prefetch(_read_all(files, vid_stride), _AHEAD), total=_count(files, vid_stride), live=False)


def _is_live(url: str) -> bool:
    """Whether an address is one of a stream, not of a file with an end. Raises InputError for a picture's."""
    address = urlparse(url)
    suffix = Path(address.path).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        raise InputError(f"{url}: is a picture's address, expected that of a video or stream; download it first")
    return address.scheme.lower() not in _OF_FILES or suffix not in VIDEO_SUFFIXES - _ENDLESS


def _silence_opencv() -> None:
    """What OpenCV would print about a bad file is in our message; where its level is set differs from version to version."""
    if hasattr(cv2, "setLogLevel"):
        cv2.setLogLevel(0)
    else:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _read_all(files: list[str], stride: int) -> Iterator[Frame | Failure]:
    for path in files:
        try:
            if is_video(path):
                yield from _read_video(path, stride)
            else:
                yield Frame(picture=read_image(path, upright=True), path=path)
        except InputError as error:
            yield Failure(path=path, reason=str(error))


def _read_video(path: str, stride: int) -> Iterator[Frame]:
    """Raises InputError, after the last good frame, when the video ends long before its time."""
    with open_video(path) as (capture, video):
        for index, picture in video_frames(capture, video, stride):
            yield Frame(picture=picture, path=path, index=index, time_s=index / video.fps, video=video)


def _count(files: list[str], stride: int) -> int | None:
    """Pictures and frames in all; None when a video does not say how many it has."""
    total = 0
    for path in files:
        if not is_video(path):
            total += 1
            continue
        try:
            with open_video(path) as (_, video):
                if video.frames is None:
                    return None
                total += -(-video.frames // stride)
        except InputError:  # reported when its turn comes
            continue
    return total


class LiveFrames:
    """Frames of a camera (number) or stream (URL), the newest each time."""

    def __init__(self, device: int | str, name: str, stride: int) -> None:
        self._reader = LiveReader(device, name, stride)
        self._name = name

    def __iter__(self) -> Iterator[Frame | Failure]:
        return self

    def __next__(self) -> Frame | Failure:
        newest = self._reader.newest()
        if newest is None:
            raise StopIteration
        return Frame(
            picture=newest.picture,
            path=self._name,
            index=newest.index,
            time_s=newest.time_s,
            video=self._reader.video,
        )

    def close(self) -> None:
        self._reader.close()

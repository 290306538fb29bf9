"""Sources of images for inference: files, folders, lists, videos, cameras, streams and arrays, as one iterator.

    with open_frames("street.mp4") as frames:
        for item in frames:
            if isinstance(item, Failure): ...   # reported and skipped
            else: item.image, item.index, item.time_s, item.video

Files are decoded in threads, ahead of the consumer. A camera or stream always yields its newest frame: a slow consumer
gets fewer frames, but never old ones.
"""

from __future__ import annotations

import glob
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from data.formats.darknet import list_base, parse_list
from data.image import HEIC_SUFFIXES, IMAGE_SUFFIXES, read_image
from data.prefetch import map_ahead, prefetch
from data.video import TIMEOUT_S, VIDEO_SUFFIXES, Video, describe, open_capture, open_video, video_frames
from utils.errors import InputError
from utils.files import decoded, exists, is_file, is_folder, read_text

logger = logging.getLogger(__name__)

RETRIES = 5
RETRY_AFTER_S = 1.0  # pause before a broken stream is reopened, doubled for each further attempt
STUCK_S = 25  # timeout for a camera's driver, which has none of its own

STDIN = "-"
_NAMED = 3  # sources listed in a message
_AHEAD = 4  # images or video frames decoded ahead of the consumer
_MAX_CAMERA = 2**31 - 1
_STREAM_SUFFIXES = frozenset({".mjpg", ".mjpeg"})  # of network camera streams
_FILE_SCHEMES = frozenset({"http", "https", "ftp", "file"})  # can be files or streams
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_GLOB = frozenset("*?[")


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One image on its way from the source to the drawn result.

    image: uint8 (height, width, 3) RGB.
    path: the file, camera or stream it comes from.
    index: number of the frame in its video or stream, from 0; 0 for an image.
    time_s: seconds from the start of the video or stream.
    video: properties of the video or stream; None for an image.
    live: whether it comes from a camera or stream.
    number: position of the image or video in the source, from 0.
    """

    image: NDArray[np.uint8]
    path: str
    index: int = 0
    time_s: float = 0.0
    video: Video | None = None
    live: bool = False
    number: int = 0

    @property
    def stem(self) -> str:
        """Base name for output files; video frames include their frame number."""
        stem = Path(self.path).stem
        return stem if self.video is None else f"{stem}_{self.index}"

    @property
    def size_wh(self) -> tuple[int, int]:
        return self.image.shape[1], self.image.shape[0]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An image or video that could not be read completely; `reason` is a sentence that names it. number: see Frame."""

    path: str
    reason: str
    number: int = 0


class Frames:
    """Iterable over Frame and Failure, usable once. Raises InputError at the end if there was no frame at all.

    total: expected number of frames; None if unknown.
    live: whether the source is a camera or stream.
    has_video: whether it contains a video, camera or stream.
    ahead: whether there is more than one image, so that reading ahead in a thread pays off.
    entries: paths of the images and videos.
    """

    def __init__(
        self,
        source: str,
        items: Iterator[Frame | Failure],
        *,
        total: int | None,
        live: bool,
        has_video: bool,
        entries: tuple[str, ...] = (),
    ) -> None:
        self.source, self.total, self.live, self.has_video, self.entries = source, total, live, has_video, entries
        self.ahead = not live and (has_video or (total or 0) > 1)
        self._items, self._stopped = items, False

    def __iter__(self) -> Iterator[Frame | Failure]:
        frames, failures = 0, list[str]()
        for item in self._items:
            if isinstance(item, Frame):
                frames += 1
            else:
                failures.append(item.reason)
            yield item
            if self._stopped:
                return
        if not frames and not self._stopped:
            if failures and failures[0].startswith(f"{self.source}: "):  # the source is that file
                raise InputError(failures[0])
            first = f"the first of {len(failures)} is {failures[0]}" if len(failures) > 1 else "".join(failures)
            raise InputError(f"{self.source}: no image or frame could be read: {first or 'it has no frames'}")

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stop(self) -> None:
        """End the iteration after the current frame. Safe to call from a signal handler."""
        self._stopped = True
        if isinstance(self._items, LiveFrames):
            self._items.stopped = True

    def close(self) -> None:
        """Stop the thread and release the file or camera."""
        if isinstance(self._items, Generator | LiveFrames):
            self._items.close()


def open_frames(source: Any, *, vid_stride: int = 1) -> Frames:
    """Open an image, video, folder, glob pattern, `.txt` list, camera number, URL, image in memory, or list of these.

    A folder contributes the files directly in it, the pattern `folder/**` also those in subfolders; `-` reads a list from
    standard input. An image in memory is anything that `as_image` accepts, or a batch of these (an array or tensor of 4
    dimensions). A camera or stream must be the only source.
    vid_stride: use every Nth frame of a video or stream.
    Raises InputError if the source does not exist or is empty.
    """
    if vid_stride < 1:
        raise InputError(f"vid-stride: cannot be {vid_stride}, expected 1 or more")
    _silence_opencv()
    is_batch = isinstance(source, (list, tuple)) or getattr(source, "ndim", 0) == 4
    sources: Sequence[Any] = source if is_batch else [source]
    if not len(sources):
        raise InputError("source: is an empty list, expected an image, video, folder, list, camera or stream")
    named = [str(each) for each in sources if isinstance(each, (str, Path, int))]
    name = ", ".join(named[:_NAMED]) + (", ..." if len(named) > _NAMED else "") or "images"
    for each in named:
        device = _live_device(each)
        if device is None:
            continue
        if len(sources) > 1:
            raise InputError(f"{each}: a camera or stream has to be the only source")
        return Frames(name, LiveFrames(device, each, vid_stride), total=None, live=True, has_video=True)
    entries: list[str | Frame] = []
    for number, each in enumerate(sources):
        if not isinstance(each, (str, Path, int)):
            entries.append(frame_of(each, number))
        elif _URL.match(str(each)):
            entries.append(str(each))
        else:
            entries += find_files(str(each))
    return frames_of(entries, name, vid_stride)


def frames_of(entries: Sequence[str | Frame], name: str, vid_stride: int = 1) -> Frames:
    """Return the frames of image and video files and images in memory, called `name` in messages."""
    has_video = any(isinstance(each, str) and is_video(each) for each in entries)
    total = _count(entries, vid_stride)
    paths = tuple(each if isinstance(each, str) else each.path for each in entries)
    return Frames(name, _read_all(entries, vid_stride), total=total, live=False, has_video=has_video, entries=paths)


def _live_device(source: str) -> int | str | None:
    """Return the camera number or stream URL; None for files. Raises InputError for a URL that cannot be read."""
    if source.isascii() and source.isdigit() and not exists(source):
        if int(source) > _MAX_CAMERA:
            raise InputError(f"{source}: no such file or folder, and not a camera number")
        return int(source)
    return source if _URL.match(source) and _is_live(source) else None


def is_video(path: str) -> bool:
    """Return whether a path is a video by its suffix; all URLs are."""
    return bool(_URL.match(path)) or Path(path).suffix.lower() in VIDEO_SUFFIXES


def find_files(source: str) -> list[str]:
    """Return the images and videos of `source`, sorted, or in the order of the list; never empty. Raises InputError.

    A folder contributes the images and videos directly in it. The name of an existing file may contain `*`, `?` or `[`.
    `-` is a list on standard input.
    """
    if source == STDIN:
        text = decoded(sys.stdin.buffer.read(), "standard input", "list", paths=True)
        return _not_empty(_entries_of_list(text, "standard input"), "standard input", "list names no")
    if not source:  # an unset variable; Path("") would be the working directory
        raise InputError("source: is empty, expected an image, video, folder, list, camera or stream")
    path = Path(source)
    try:
        if path.is_dir():
            inside = sorted(path.iterdir())
            hint = f" directly in it; '{path / '**'}' takes those of its subfolders"
            hint = hint if any(is_folder(each) for each in inside) else ""
            return _not_empty(_known(inside, source), source, "folder has no", hint)
        found = path.exists()
    except OSError as error:  # no permission, or a name that is too long
        raise InputError(f"{source}: cannot be read: {error.strerror}") from None
    if found:
        if path.suffix.lower() != ".txt":
            return [str(path)]
        return _not_empty(_entries_of_list(read_text(path, "list", paths=True), source), source, "list names no")
    if _GLOB & set(source):
        matches = sorted(Path(each) for each in glob.iglob(source, recursive=True))  # noqa: PTH207, absolute patterns
        return _not_empty(_known(matches, source), source, "pattern matches no")
    raise InputError(f"{source}: no such image, video, folder, list, camera or stream")


def _known(paths: Sequence[Path], source: str) -> list[Path]:
    """Return the images and videos among `paths`; warn of images in the format of phones, which OpenCV cannot read."""
    heic = sum(path.suffix.lower() in HEIC_SUFFIXES for path in paths)
    if heic:
        logger.warning("%s: %d HEIC image%s left out: convert to JPEG first", source, heic, "s" * (heic > 1))
    known = (path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES)
    # A link to a missing file is one that cannot be read, and is reported as such.
    return [path for path in known if is_file(path) or (path.is_symlink() and not exists(path))]


def _not_empty(paths: Sequence[str | Path], source: str, what: str, hint: str = "") -> list[str]:
    if not paths:
        raise InputError(f"{source}: {what} images or videos{hint}")
    return [str(path) for path in paths]


def _entries_of_list(text: str, place: str) -> list[str | Path]:
    """Return the paths and video URLs in the text of a list. Raises InputError with the line of any other URL."""
    for number, line in enumerate(text.splitlines(), 1):
        if not _URL.match(entry := line.strip()):
            continue
        try:
            live = _is_live(entry)
        except InputError as error:
            raise InputError(f"{place}:{number}: {error}") from None
        if live:
            raise InputError(f"{place}:{number}: {entry}: a camera or stream has to be the only source")
    entries = parse_list(text)
    base = list_base([entry for entry in entries if not _URL.match(entry)], Path(place))
    return [entry if _URL.match(entry) else base / entry for entry in entries]


def frame_of(value: Any, number: int) -> Frame:
    """Return the frame of image `number` in memory. Raises InputError for anything that `as_image` does not accept."""
    return Frame(image=as_image(value, f"image {number}"), path=f"image{number}")


def as_image(value: Any, place: str) -> NDArray[np.uint8]:
    """Convert an image in memory to uint8 (height, width, 3) RGB; `place` names it in the error.

    Accepts such arrays, PIL images, and PyTorch tensors (3, height, width) of uint8 or of floats in [0, 1].
    Raises InputError for anything else.
    """
    if hasattr(value, "convert"):  # PIL
        if value.mode in ("I", "F"):  # 32 bits of unknown range, which PIL would clip at 255
            raise InputError(f"{place}: is a PIL image of mode {value.mode}, expected one of 8 or 16 bits")
        if value.mode.startswith("I;16"):  # keep the upper 8 bits, as `read_image` does
            value = np.repeat((np.asarray(value) >> 8).astype(np.uint8)[..., None], 3, axis=2)
        else:
            value = np.asarray(value.convert("RGB"))
    elif isinstance(value, torch.Tensor) and value.ndim == 3:
        planes = value.detach().cpu().permute(1, 2, 0)
        if planes.is_floating_point():
            if not bool(((planes >= 0) & (planes <= 1)).all()):
                raise InputError(f"{place}: has values outside [0, 1], expected floats in [0, 1] or uint8")
            planes = (planes * 255).round().to(torch.uint8)
        value = planes.numpy()
    is_image = isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] == 3
    if value is None:
        raise InputError(
            f"{place}: is None, which cv2.imread returns for a file that it cannot read; expected an image"
        )
    if not is_image or not value.size:
        kind = f"{value.dtype} {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__
        raise InputError(f"{place}: is {kind}, expected uint8 (height, width, 3), colours red, green, blue")
    return np.ascontiguousarray(value)


def _is_live(url: str) -> bool:
    """Return whether a URL is a stream rather than a video file. Raises InputError for an image or an invalid URL."""
    try:
        address = urlparse(url)
    except ValueError as error:
        raise InputError(f"{url}: is not a valid URL: {error}") from None
    suffix = Path(address.path).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        raise InputError(f"{url}: is the URL of an image, expected a video or a stream; download the image first")
    return address.scheme.lower() not in _FILE_SCHEMES or suffix not in VIDEO_SUFFIXES - _STREAM_SUFFIXES


def _silence_opencv() -> None:
    """Silence OpenCV, whose versions differ in where the log level is set, and FFmpeg: bad files are reported here."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if hasattr(cv2, "setLogLevel"):
        cv2.setLogLevel(0)
    else:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _read_all(entries: Sequence[str | Frame], stride: int) -> Generator[Frame | Failure, None, None]:
    """Yield all entries; threads read ahead unless there is a single image."""
    with closing(map_ahead(_read_one, enumerate(entries), _AHEAD if len(entries) > 1 else 0)) as read:
        for number, each in enumerate(read):
            if not isinstance(each, str):
                yield each
                continue
            try:
                with closing(prefetch(read_video(each, stride, number), _AHEAD)) as frames:
                    yield from frames
            except InputError as error:
                yield Failure(path=each, reason=str(error), number=number)


def _read_one(numbered: tuple[int, str | Frame]) -> str | Frame | Failure:
    """Return the image of an entry; the path of a video is returned unchanged."""
    number, entry = numbered
    if isinstance(entry, Frame) or is_video(entry):
        return entry
    try:
        return Frame(image=read_image(entry), path=entry, number=number)
    except InputError as error:
        return Failure(path=entry, reason=str(error), number=number)


def read_video(path: str, stride: int = 1, number: int = 0) -> Iterator[Frame]:
    """Yield every `stride`-th frame of a video file. Raises InputError after the last good frame if it is truncated."""
    with open_video(path) as (capture, video):
        for index, image in video_frames(capture, video, stride):
            yield Frame(image=image, path=path, index=index, time_s=index / video.fps, video=video, number=number)


def _count(entries: Sequence[str | Frame], stride: int) -> int | None:
    """Return the total number of images and frames; None if unknown for a video."""
    total = 0
    for path in entries:
        if isinstance(path, Frame) or not is_video(path):
            total += 1
            continue
        try:
            with open_video(path) as (_, video):
                if video.frames is None:
                    return None
                total += -(-video.frames // stride)
        except InputError:  # reported when the file is read
            continue
    return total


class LiveFrames:
    """The newest frames of a camera (number) or stream (URL): a thread reads continuously and keeps the latest one.

    A stream that breaks off, or delivers no frame for TIMEOUT_S, is reopened up to RETRIES times with growing pauses;
    after that the last item is a Failure. Setting `stopped` ends the iteration within a second. `close` logs how many
    frames were dropped. Raises InputError if the device cannot be opened in the first place.
    """

    def __init__(self, device: int | str, name: str, stride: int) -> None:
        self._device, self._name, self._stride = device, name, stride
        self._what = "camera" if isinstance(device, int) else "stream"
        self._capture = _open(device)
        if not self._capture.isOpened():
            self._capture.release()
            raise InputError(f"{name}: {self._what} cannot be opened")
        self._video = describe(self._capture, name)
        self._changed = threading.Condition()
        self._newest: tuple[NDArray[np.uint8], int, float, Video] | None = None
        self._read_so_far = self._dropped = self._reconnects = 0
        self._steps = 0  # driver calls that have returned
        self._ended = self.stopped = False
        self._failure: str | None = None
        self._error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Frame | Failure]:
        return self

    def __next__(self) -> Frame | Failure:
        """Wait for the next new frame."""
        with self._changed:
            self._wait()
            if self._newest is None:
                if self._failure is None:
                    raise self._error or StopIteration
                reason, self._failure = self._failure, None
                return Failure(path=self._name, reason=f"{self._name}: {reason}")
            (bgr, index, time_s, video), self._newest = self._newest, None
        image = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
        return Frame(image=image, path=self._name, index=index, time_s=time_s, video=video, live=True)

    def _wait(self) -> None:
        """Wait until there is a frame, or the thread has ended or is stuck."""
        steps, silent = self._steps, 0
        while self._newest is None and not (self._ended or self.stopped):
            self._changed.wait(1)
            silent = silent + 1 if self._steps == steps else 0  # not by the clock: this process may have been suspended
            steps = self._steps
            if silent > STUCK_S:
                self._failure = f"the {self._what} has not answered for {STUCK_S} s after {self._read_so_far} frames"
                self._ended = True
                self._stop.set()

    def close(self) -> None:
        """Stop the thread and release the device."""
        self._stop.set()
        self._thread.join(TIMEOUT_S)
        if self._dropped or self._reconnects:
            text = "%s: %d frames read, %d of them dropped because newer ones came before they were needed, %d reconnections"
            logger.info(text, self._name, self._read_so_far, self._dropped, self._reconnects)

    def _run(self) -> None:
        try:
            self._read()
        except cv2.error as error:
            self._failure = f"the {self._what} cannot be read: {error.err}"
        except Exception as error:  # raised again in the consumer's thread
            self._error = error
        finally:
            self._capture.release()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _read(self) -> None:
        start, tries = time.monotonic(), 0
        while not self._stop.is_set():
            good, bgr = self._capture.read()
            self._steps += 1
            if good:
                if self._read_so_far % self._stride == 0:
                    self._publish(np.asarray(bgr, np.uint8), time.monotonic() - start)
                self._read_so_far, tries = self._read_so_far + 1, 0
            elif tries < RETRIES:
                pause, tries = RETRY_AFTER_S * 2**tries, tries + 1
                text = "%s: no frame, opening it again in %g s (attempt %d of %d)"
                logger.warning(text, self._name, pause, tries, RETRIES)
                self._capture.release()
                self._pause(pause)
                if self._stop.is_set():
                    break
                self._capture = _open(self._device)
                self._steps, self._reconnects = self._steps + 1, self._reconnects + 1
            else:
                self._failure = (
                    f"the {self._what} broke off after {self._read_so_far} frames, and {RETRIES} attempts to open it "
                    "again gave none"
                )
                break

    def _pause(self, seconds: float) -> None:
        """Wait, but count a step every second so that the thread does not seem stuck."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._stop.wait(min(left, 1)):
            self._steps += 1

    def _publish(self, bgr: NDArray[np.uint8], time_s: float) -> None:
        size_wh = (bgr.shape[1], bgr.shape[0])
        if size_wh != self._video.size_wh:
            if self._read_so_far:
                logger.warning(
                    "%s: frames of %dx%d pixels follow those of %dx%d", self._name, *size_wh, *self._video.size_wh
                )
            self._video = replace(self._video, size_wh=size_wh)
        with self._changed:
            self._dropped += self._newest is not None
            self._newest = (bgr, self._read_so_far, time_s, self._video)
            self._changed.notify_all()


def _open(device: int | str) -> cv2.VideoCapture:
    return cv2.VideoCapture(device) if isinstance(device, int) else open_capture(device)

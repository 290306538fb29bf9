"""Decoding of uploads in separate processes, so that a file that crashes a decoder fails only its own request.

The decoders of OpenCV and FFmpeg handle untrusted bytes. They run in a few long-lived processes that use at most
MEMORY_BYTES each, cannot write files, and have TIME_S for each image or frame. A process that dies or takes longer is
replaced.
"""

from __future__ import annotations

import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from data.image import declared_header, is_heic, read_image
from data.video import open_video, video_frames
from utils.errors import InputError, RunError

MOST_PIXELS = 50_000_000
MEMORY_BYTES = 2 << 30
TIME_S = 20.0
_STARTS, _START_S, _LOOK_S = 3, 60.0, 0.2
_HEAD = 12
# A reply: kind, height (for text: its length), width, frame index in the video, seconds from its start.
_REPLY = struct.Struct("<cIIId")
_READY, _IMAGE, _FRAME, _END, _CUT, _DAMAGED, _UNKNOWN = b"r", b"i", b"f", b"e", b"c", b"d", b"u"
_MOST_TEXT = 1000
_PIPE_BYTES = 1 << 20  # twice as fast as the default of 64 kB
_MAIN = "import sys; sys.path[0] = {folder!r}; from {module} import work; work()"
_SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "OPENCV_IO_MAX_IMAGE_PIXELS": str(MOST_PIXELS),
    "OPENCV_FFMPEG_CAPTURE_OPTIONS": "threads;2|protocol_whitelist;file",
}


class UnknownKind(InputError):
    """The upload is neither an image nor a video of an accepted kind."""


@dataclass(frozen=True)
class DecodedFrame:
    """image: uint8 (height, width, 3) RGB. index, time_s: position in the video; time_s is None for an image."""

    image: NDArray[np.uint8]
    index: int
    time_s: float | None


class End(NamedTuple):
    """The end of an upload. complete: whether all frames of the video have been read."""

    complete: bool


class Decoders:
    """A pool of `count` decoder processes, with another one for each upload while all of them are busy.

    Raises RunError if the first cannot be started; the others continue to start in the background.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._all: set[_Decoder] = set()
        self._idle: deque[_Decoder] = deque()
        threading.Thread(target=self._watch, name="decoding time", daemon=True).start()
        try:
            with self._lock:
                self._idle.extend(self._start() for _ in range(count))
            self._idle[-1].wait_until_ready()
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """Process ids."""
        with self._lock:
            return [each.process.pid for each in self._all]

    def read(self, path: Path, most_frames: int) -> Generator[DecodedFrame | End, None, None]:
        """Yield the image of an upload, or up to `most_frames` frames of a video and its End.

        Raises InputError for an unusable file, RunError if no process can be started.
        """
        decoder, is_ours = self._take(), True
        try:
            decoder.begin(path, most_frames)
            while is_ours:
                try:
                    found = decoder.next()
                finally:
                    if not decoder.busy:  # it has sent everything, or an error
                        is_ours = False
                        self._give_back(decoder)
                yield found
        finally:
            if is_ours:  # it died, or the consumer stopped early
                self._replace(decoder)

    def close(self) -> None:
        """Kill all processes."""
        self._closed.set()
        with self._lock:
            idle, busy = set(self._idle), self._all - set(self._idle)
            self._idle.clear()
        for each in idle:
            self._end(each)
        for each in busy:  # its reader cleans up
            each.process.kill()

    def _take(self) -> _Decoder:
        failures = 0
        while True:
            with self._lock:
                decoder = self._idle.pop() if self._idle else self._start()
            try:
                decoder.wait_until_ready()
            except RunError:
                self._replace(decoder)
                failures += 1
                if failures == _STARTS:
                    raise
                continue
            if decoder.process.poll() is None:
                return decoder
            self._replace(decoder)  # it died while idle

    def _give_back(self, decoder: _Decoder) -> None:
        with self._lock:
            keep = len(self._idle) < self._count and not self._closed.is_set()
            if keep:
                self._idle.append(decoder)
        if not keep:
            self._end(decoder)

    def _replace(self, decoder: _Decoder) -> None:
        self._end(decoder)
        with self._lock:
            if len(self._all) < self._count and not self._closed.is_set():
                self._idle.appendleft(self._start())  # used last, since it takes a moment to start

    def _start(self) -> _Decoder:
        decoder = _Decoder()
        self._all.add(decoder)
        return decoder

    def _end(self, decoder: _Decoder) -> None:
        with self._lock:
            self._all.discard(decoder)
        decoder.end()

    def _watch(self) -> None:
        """Kill late processes; time is counted here, since a clock also advances while this process is suspended."""
        while not self._closed.wait(_LOOK_S):
            with self._lock:
                processes = tuple(self._all)
            for each in processes:
                each.waited_s += _LOOK_S
                if each.waited_s > each.limit_s:
                    each.is_late = True
                    each.process.kill()


class _Decoder:
    """One process.

    busy: whether it is still working on a request. waited_s, limit_s: time waited for the next reply, and its limit.
    """

    def __init__(self) -> None:
        folder = str(Path(__file__).resolve().parents[__name__.count(".")])
        command = [sys.executable, "-c", _MAIN.format(folder=folder, module=__name__)]
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env=os.environ | _SETTINGS,
                start_new_session=True,  # Ctrl-C is handled by the server
            )
        except OSError as error:
            raise RunError(f"the process that decodes uploads cannot be started: {error.strerror}") from None
        assert self.process.stdin is not None and self.process.stdout is not None
        self._requests, self._replies = self.process.stdin, self.process.stdout
        _enlarge(self._replies.fileno())
        self.busy, self.is_late, self._is_ready = True, False, False
        self.waited_s, self.limit_s = 0.0, _START_S

    def wait_until_ready(self) -> None:
        """Wait until the process has started. Raises RunError."""
        if self._is_ready:
            return
        try:
            self._receive(bytearray(_REPLY.size))
        except InputError:
            code = self.process.wait()
            raise RunError(f"the process that decodes uploads failed to start (exit code {code})") from None
        self._is_ready, self.busy, self.limit_s = True, False, math.inf

    def begin(self, path: Path, most_frames: int) -> None:
        self.busy = True
        with suppress(BrokenPipeError):  # `next` reports that the process died
            self._requests.write(json.dumps([str(path), most_frames]).encode() + b"\n")

    def next(self) -> DecodedFrame | End:
        """Return the next frame, or the end of a video. Raises InputError."""
        self.waited_s, self.limit_s = 0.0, TIME_S
        reply = bytearray(_REPLY.size)
        self._receive(reply)
        kind, height, width, index, time_s = _REPLY.unpack(reply)
        if kind in (_DAMAGED, _UNKNOWN):
            text = bytearray(min(height, _MOST_TEXT))
            self._receive(text)
        elif kind in (_IMAGE, _FRAME):
            assert height * width <= MOST_PIXELS
            image = np.empty((height, width, 3), np.uint8)
            self._receive(image)
        self.limit_s = math.inf
        self.busy = kind == _FRAME
        if kind in (_DAMAGED, _UNKNOWN):
            raise (UnknownKind if kind == _UNKNOWN else InputError)(text.decode())
        if kind in (_END, _CUT):
            return End(complete=kind == _END)
        return DecodedFrame(image, index, time_s if kind == _FRAME else None)

    def end(self) -> None:
        """Kill the process and close its pipes."""
        self.process.kill()
        self.process.wait()
        self._requests.close()
        self._replies.close()

    def _receive(self, buffer: bytearray | NDArray[np.uint8]) -> None:
        """Fill the buffer. Raises InputError if the process ends."""
        rest = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        while rest:
            count = self._replies.readinto(rest)  # type: ignore[attr-defined]
            if not count:
                raise InputError(
                    f"upload: takes longer than {TIME_S:g} s to decode"
                    if self.is_late
                    else f"upload: crashes its decoder, or needs more than {MEMORY_BYTES >> 30} GB to be decoded"
                )
            rest = rest[count:]


def _enlarge(pipe: int) -> None:
    with suppress(ImportError, AttributeError, OSError):  # not Linux, or the user has too many large pipes
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def work() -> None:
    """Run in the decoder process: read requests from standard input and write frames to standard output until input ends."""
    replies = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # anything that decoders print
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    restrict()
    _send(replies, _READY)
    for line in sys.stdin.buffer:
        path, most_frames = json.loads(line)
        try:
            _decode(replies, Path(path), most_frames)
        except MemoryError:
            _send_text(replies, _DAMAGED, f"upload: needs more than {MEMORY_BYTES >> 30} GB to be decoded")
        except InputError as error:
            kind = _UNKNOWN if isinstance(error, UnknownKind) else _DAMAGED
            _send_text(replies, kind, str(error).replace(path, "upload"))


def restrict() -> None:
    """Limit the memory of this process, keep it from writing files, and make it the first to be killed if memory runs out."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with suppress(ImportError, OSError, ValueError):  # ValueError: macOS has no memory limit
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _decode(replies: int, path: Path, most_frames: int) -> None:
    if not is_video(path):
        _send_image(replies, _IMAGE, read_image(path))
        return
    with open_video(str(path)) as (capture, video):
        _refuse_huge(*video.size_wh)
        for index, image in video_frames(capture, video):
            if index >= most_frames:
                _send(replies, _CUT)
                return
            _send_image(replies, _FRAME, image, index, index / video.fps)
    _send(replies, _END)


def is_video(path: Path) -> bool:
    """Return whether an upload is a video; only containers that cannot refer to other files or URLs are accepted.

    This depends on its first bytes, not on its name or the client's content type. Raises UnknownKind, and InputError for
    a damaged or huge image.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    if is_heic(head):
        raise UnknownKind("upload: is a HEIC image, which OpenCV cannot read; convert it to JPEG first")
    if head[4:8] == b"ftyp" or head.startswith(b"\x1a\x45\xdf\xa3") or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return True
    with path.open("rb") as stream:
        header = declared_header(stream, "upload")
    if header is None:
        raise UnknownKind("upload: expected an image (JPEG, PNG, WebP, BMP, GIF) or a video (MP4, MOV, WebM, MKV, AVI)")
    _refuse_huge(*header.size_wh)
    return False


def _refuse_huge(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise InputError(f"upload: {width}x{height} pixels, expected at most {MOST_PIXELS:,} in all")


def _send_image(replies: int, kind: bytes, image: NDArray[np.uint8], index: int = 0, time_s: float = 0.0) -> None:
    height, width, _ = image.shape
    _refuse_huge(width, height)  # the header may have declared another size
    _send(replies, kind, height, width, index, time_s)
    _write(replies, image)


def _send_text(replies: int, kind: bytes, text: str) -> None:
    data = text.encode("ascii", "backslashreplace")[:_MOST_TEXT]
    _send(replies, kind, len(data))
    _write(replies, data)


def _send(replies: int, kind: bytes, height: int = 0, width: int = 0, index: int = 0, time_s: float = 0.0) -> None:
    _write(replies, _REPLY.pack(kind, height, width, index, time_s))


def _write(replies: int, data: bytes | NDArray[np.uint8]) -> None:
    rest = memoryview(data).cast("B")  # type: ignore[arg-type]
    while rest:
        rest = rest[os.write(replies, rest) :]

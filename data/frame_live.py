"""The newest frame of a camera or stream."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data.video import describe
from utils.errors import InputError

logger = logging.getLogger(__name__)

RETRIES = 3
RETRY_AFTER_S = 1.0
TIMEOUT_MS = 10_000


@dataclass(frozen=True)
class Newest:
    """picture: uint8 (h, w, 3) RGB. index: number of the frame since the start, time_s: seconds since the start."""

    picture: NDArray[np.uint8]
    index: int
    time_s: float


class LiveReader:
    """Reads all the time in a thread and keeps the last frame, so that the reader is never behind.

    A stream that breaks off is opened again, RETRIES times. Raises InputError when it cannot be opened at first.
    """

    def __init__(self, device: int | str, name: str, stride: int = 1) -> None:
        self._device, self._name, self._stride = device, name, stride
        self._capture = _open(device)
        if not self._capture.isOpened():
            self._capture.release()
            what = "camera" if isinstance(device, int) else "stream"
            raise InputError(f"{name}: {what} cannot be opened")
        self.video = describe(self._capture, name)
        self._news = threading.Condition()
        self._bgr: tuple[NDArray[np.uint8], int, float] | None = None
        self._ended = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live", daemon=True)
        self._thread.start()

    def newest(self) -> Newest | None:
        """Wait for a frame not seen yet; None when there will be no more."""
        with self._news:
            self._news.wait_for(lambda: self._bgr is not None or self._ended)
            if self._bgr is None:
                return None
            (bgr, index, time_s), self._bgr = self._bgr, None
        return Newest(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), index, time_s)

    def close(self) -> None:
        """End the thread and let go of the device."""
        self._stop.set()
        self._thread.join(TIMEOUT_MS / 1000)

    def _run(self) -> None:
        try:
            self._read()
        finally:
            self._capture.release()
            with self._news:
                self._ended = True
                self._news.notify_all()

    def _read(self) -> None:
        start, index, tries = time.monotonic(), 0, 0
        while not self._stop.is_set():
            good, bgr = self._capture.read()
            if good:
                if index % self._stride == 0:
                    self._publish((np.asarray(bgr, np.uint8), index, time.monotonic() - start))
                index, tries = index + 1, 0
            elif tries < RETRIES:
                tries += 1
                logger.warning("%s: no frame, opening again (%d of %d)", self._name, tries, RETRIES)
                self._capture.release()
                self._stop.wait(RETRY_AFTER_S)
                self._capture = _open(self._device)
            else:
                break

    def _publish(self, frame: tuple[NDArray[np.uint8], int, float]) -> None:
        with self._news:
            self._bgr = frame
            self._news.notify_all()


def _open(device: int | str) -> cv2.VideoCapture:
    if isinstance(device, int):
        return cv2.VideoCapture(device)
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT_MS]
    return cv2.VideoCapture(device, cv2.CAP_FFMPEG, timeouts)

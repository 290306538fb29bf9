"""Draw, encode and write results in a thread of their own."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from data.frames import Failure, Frame, is_video
from data.image import WRITABLE_SUFFIXES, save_image
from data.video import VideoWriter
from inference.journal import Journal
from inference.results import (
    CsvWriter,
    FileNames,
    JsonWriter,
    Result,
    class_csv,
    detection_csv,
    json_part,
    label_text,
    save_crops,
)
from utils.background import Consumer
from utils.draw import annotate
from utils.errors import InputError, RunError
from utils.files import exists, write_text

_WAITING = 8  # results that wait for the writer at most
JSON_NAME, CSV_NAME = "results.json", "results.csv"
_LONGEST_GAP = 250  # maximum number of times that a frame of a live source is written


def sizes_of_results(folder: Path) -> dict[str, int]:
    """Return the sizes in bytes of the files in a run folder that grow during a run."""
    json = folder / JSON_NAME
    files = {JSON_NAME: part if exists(part := json_part(json)) else json, CSV_NAME: folder / CSV_NAME}
    return {name: path.stat().st_size for name, path in files.items() if exists(path)}


@dataclass(frozen=True, kw_only=True)
class RecordFlags:
    """Flags of detect.py that select what is written and shown."""

    out: str | None
    no_save: bool
    save_txt: bool
    save_conf: bool
    save_json: bool
    save_csv: bool
    save_crop: bool
    view_img: bool
    line_thickness: int | None
    hide_labels: bool
    hide_conf: bool
    fourcc: str | None
    vid_stride: int

    @property
    def in_folder(self) -> bool:
        """Whether anything is written into the run folder."""
        files = self.save_txt or self.save_conf or self.save_json or self.save_csv or self.save_crop
        return files or not (self.no_save or self.out)


class Recorder:
    """Context manager that writes the results passed to `add`. Leaving it completes every file, even after Ctrl-C.

    flags: what to write and show.
    journal: records the run's progress; files are continued from there.
    classifier: write only the best classes, to results.csv.
    seconds: time spent drawing and writing.
    out: the file of --out; its extension may have been changed to suit the codec.

    Raises RunError, from `add` or at the end, if something cannot be written.
    """

    def __init__(
        self, folder: Path, flags: RecordFlags, journal: Journal | None = None, *, classifier: bool = False
    ) -> None:
        self.seconds = 0.0
        self.out = None if flags.out is None else Path(flags.out)
        self._folder, self._flags, self._classifier = folder, flags, classifier
        self._stack = ExitStack()
        self._video: VideoWriter | None = None
        self._video_path = ""
        self._next_index = 0
        self._names = FileNames()
        self._journal, self._number = journal, -1
        self._writers: dict[str, JsonWriter | CsvWriter] = {}  # by file name
        for path in journal.past if journal else ():
            self._names.of_source(path, video=is_video(path))

    def __enter__(self) -> Recorder:
        flags, kept = self._flags, self._journal.after.sizes if self._journal else {}
        if flags.save_json:
            path, resumable = self._folder / JSON_NAME, self._journal is not None
            self._writers[JSON_NAME] = JsonWriter(path, self._names, kept.get(JSON_NAME, 0), keep_part=resumable)
        if flags.save_csv or (self._classifier and not flags.no_save):
            open_csv = class_csv if self._classifier else detection_csv
            self._writers[CSV_NAME] = open_csv(self._folder / CSV_NAME, kept.get(CSV_NAME, 0))
        for writer in self._writers.values():
            self._stack.enter_context(writer)
        self._thread = Consumer(self._run, _WAITING, "recorder")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.finish()
        failed = self._thread.error
        self._stack.__exit__(kind or (type(failed) if failed else None), error or failed, trace)
        if kind is None and failed is not None:
            raise failed

    def add(self, result: Result | Failure) -> None:
        """Queue a result, waiting while the queue is full. Of a Failure only the number is noted."""
        self._thread.put(result)

    def _run(self, results: Iterator[Result | Failure]) -> None:
        try:
            for result in results:
                start = time.perf_counter()
                self._note(result)
                if isinstance(result, Result):
                    self._record(result)
                self.seconds += time.perf_counter() - start
        except (OSError, cv2.error) as error:
            raise RunError(f"results cannot be written: {error}") from error
        finally:
            self._close_video()

    def _note(self, item: Result | Failure) -> None:
        """Note that all earlier images and videos are finished, before anything of the next one is written."""
        number = item.number if isinstance(item, Failure) else item.frame.number
        if self._journal is None or number == self._number:
            return
        self._journal.note(number, {name: writer.file.size for name, writer in self._writers.items()})
        if isinstance(item, Failure):
            self._journal.note_failed(number)
        self._number = number

    def _record(self, result: Result) -> None:
        flags, frame, found = self._flags, result.frame, result.detections
        if flags.save_txt or flags.save_conf:
            text = label_text(found, frame.size_wh, with_scores=flags.save_conf)
            write_text(self._folder / "labels" / f"{self._names.of_frame(frame)}.txt", text, durable=False)
        for writer in self._writers.values():
            writer.add(result)
        if flags.save_crop:
            save_crops(self._folder / "crops", result, self._names.of_frame(frame))
        if self._classifier or (flags.no_save and not flags.view_img):
            return
        drawn = annotate(
            frame.image,
            found,
            result.names,
            thickness=flags.line_thickness,
            labels=not flags.hide_labels,
            scores=not flags.hide_conf,
        )
        if not flags.no_save:
            (self._write_image if frame.video is None else self._write_frame)(frame, drawn)
        if flags.view_img:
            _show(drawn, wait=frame.video is None)

    def _write_image(self, frame: Frame, drawn: NDArray[np.uint8]) -> None:
        if self.out is not None:
            save_image(self.out, drawn)
            return
        suffix = Path(frame.path).suffix.lower()
        suffix = suffix if suffix in WRITABLE_SUFFIXES else ".jpg"
        save_image(self._folder / f"{self._names.of_frame(frame)}{suffix}", drawn)

    def _write_frame(self, frame: Frame, drawn: NDArray[np.uint8]) -> None:
        assert frame.video is not None
        if self._video is None or self._video_path != frame.path:
            self._close_video()
            path = self.out or self._folder / f"{self._names.of_source(frame.path, video=True)}.mp4"
            fps = frame.video.fps if frame.live else frame.video.fps / self._flags.vid_stride
            self._video = VideoWriter(path, fps, self._flags.fourcc)
            self._video_path, self._next_index = frame.path, frame.index
        repeats = 1
        if frame.live:  # replace dropped frames by repeated ones to keep the timing
            repeats = min(max(frame.index - self._next_index + 1, 1), _LONGEST_GAP)
            self._next_index = frame.index + 1
        for _ in range(repeats):
            self._video.write(drawn)

    def _close_video(self) -> None:
        if self._video is not None:
            video, self._video = self._video, None
            video.close()
            self.out = self.out and video.path


def _show(drawn: NDArray[np.uint8], *, wait: bool) -> None:
    try:
        cv2.imshow("cspyolo", drawn[:, :, ::-1])
        cv2.waitKey(0 if wait else 1)
    except cv2.error:
        raise InputError("--view-img: this OpenCV build cannot open a window; leave the flag out") from None


def has_screen() -> bool:
    """Return whether a window can be opened; without a screen, OpenCV's Qt would abort the process.

    QT_QPA_PLATFORM may select a platform that needs no screen.
    """
    names = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    return sys.platform != "linux" or any(map(os.environ.get, names))


def require_screen(what: str) -> None:
    """Raise InputError without a screen."""
    if not has_screen():
        raise InputError(f"{what}: there is no display (DISPLAY is not set)")

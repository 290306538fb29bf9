"""Draw, encode and write results, in a thread beside the network."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
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
from inference.journal import GrowingFile, Journal
from inference.results import (
    CropWriter,
    FileNames,
    JsonWriter,
    LabelWriter,
    Result,
    ResultWriter,
    class_csv,
    detection_csv,
    json_part,
)
from utils.draw import annotate
from utils.errors import InputError, RunError
from utils.files import exists

_WAITING = 8  # frames between the network and the writer
JSON_NAME, CSV_NAME = "results.json", "results.csv"
_LONGEST_GAP = 250  # frames of a live source that one frame may stand in for


def sizes_of_results(folder: Path) -> dict[str, int]:
    """Bytes of the files in a run folder that grow during a run."""
    json = folder / JSON_NAME
    files = {JSON_NAME: part if exists(part := json_part(json)) else json, CSV_NAME: folder / CSV_NAME}
    return {name: path.stat().st_size for name, path in files.items() if exists(path)}


@dataclass(frozen=True, kw_only=True)
class RecordOptions:
    """What is written.

    media: annotated images and videos. out: file of the only one, in place of one in the run folder. show: a window with them.
    top_classes: results.csv of a classifier. The rest is as the flags of detect.py say.
    """

    media: bool = True
    out: Path | None = None
    show: bool = False
    labels_txt: bool = False
    scores_in_txt: bool = False
    json: bool = False
    csv: bool = False
    crops: bool = False
    top_classes: bool = False
    thickness: int | None = None
    hide_labels: bool = False
    hide_scores: bool = False
    codec: str | None = None
    vid_stride: int = 1

    @property
    def in_folder(self) -> bool:
        """Whether anything is written into the run folder."""
        files = self.labels_txt or self.json or self.csv or self.crops or self.top_classes
        return files or (self.media and self.out is None)


class Recorder:
    """Context manager; `add` takes one result. Leaving it finishes every file, after Ctrl-C too.

    seconds: time spent drawing and writing. out: the file of `RecordOptions.out`, whose extension the codec may have changed.
    journal: keeps the run's progress; the files go on from where it stands. Raises RunError, from `add` or at the end, when
    something cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        options: RecordOptions,
        journal: Journal | None = None,
    ) -> None:
        self.seconds = 0.0
        self.out = options.out
        self._folder, self._options = folder, options
        self._queue: queue.Queue[Result | Failure | None] = queue.Queue(_WAITING)
        self._error: Exception | None = None
        self._stack = ExitStack()
        self._video: VideoWriter | None = None
        self._video_path = ""
        self._next_index = 0
        self._names = FileNames()
        self._journal, self._number = journal, -1
        self._growing: dict[str, GrowingFile] = {}
        for path in journal.past if journal else ():
            self._names.of_source(path, video=is_video(path))

    def __enter__(self) -> Recorder:
        self._writers = self._open_writers()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        failed = self._error
        self._stack.__exit__(kind or (type(failed) if failed else None), error or failed, trace)
        if kind is None and failed is not None:
            raise failed

    def add(self, result: Result | Failure) -> None:
        """Queue a result; waits while the thread is several behind. Of a failure, only its number is noted."""
        if self._error is not None:
            raise self._error
        self._queue.put(result)

    def _open_writers(self) -> list[ResultWriter]:
        options, folder, names = self._options, self._folder, self._names
        kept = self._journal.after.sizes if self._journal else {}
        json_kept, csv_kept = kept.get(JSON_NAME, 0), kept.get(CSV_NAME, 0)
        writers: list[ResultWriter] = []
        if options.labels_txt:
            writers.append(LabelWriter(folder / "labels", names, with_scores=options.scores_in_txt))
        if options.json:
            json = JsonWriter(folder / JSON_NAME, names, json_kept, keep_part=self._journal is not None)
            writers.append(self._stack.enter_context(json))
            self._growing[JSON_NAME] = json.file
        if options.csv or options.top_classes:
            rows = (detection_csv if options.csv else class_csv)(folder / CSV_NAME, csv_kept)
            writers.append(self._stack.enter_context(rows))
            self._growing[CSV_NAME] = rows.file
        if options.crops:
            writers.append(CropWriter(folder / "crops", names))
        return writers

    def _run(self) -> None:
        ended = False
        try:
            try:
                while (result := self._queue.get()) is not None:
                    start = time.perf_counter()
                    self._note(result)
                    if isinstance(result, Result):
                        self._record(result)
                    self.seconds += time.perf_counter() - start
                ended = True
            finally:
                self._close_video()
        except Exception as error:  # the caller gets it
            foreign = isinstance(error, (OSError, cv2.error))
            self._error = RunError(f"results cannot be written: {error}") if foreign else error
            while not ended and self._queue.get() is not None:  # keep the caller from waiting for room in the queue
                pass

    def _note(self, item: Result | Failure) -> None:
        """Note, before anything of another image or video is written, that those before it are finished."""
        number = item.number if isinstance(item, Failure) else item.frame.number
        if self._journal is None or number == self._number:
            return
        self._journal.note(number, {name: file.size for name, file in self._growing.items()})
        if isinstance(item, Failure):
            self._journal.note_failed(number)
        self._number = number

    def _record(self, result: Result) -> None:
        for writer in self._writers:
            writer.add(result)
        options = self._options
        if not options.media and not options.show:
            return
        drawn = annotate(
            result.frame.image,
            result.detections,
            result.names,
            thickness=options.thickness,
            labels=not options.hide_labels,
            scores=not options.hide_scores,
        )
        if options.media and result.frame.video is None:
            self._write_image(result.frame, drawn)
        elif options.media:
            self._write_frame(result.frame, drawn)
        if options.show:
            _show(drawn, wait=result.frame.video is None)

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
            fps = frame.video.fps if frame.live else frame.video.fps / self._options.vid_stride
            self._video = VideoWriter(path, fps, self._options.codec)
            self._video_path, self._next_index = frame.path, frame.index
        repeats = 1
        if frame.live:  # repeat frames in place of dropped ones, so that the video keeps time
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
        raise InputError("--view-img: this OpenCV cannot open a window here; leave the flag out") from None


def require_screen(what: str) -> None:
    """Raise InputError without a screen: OpenCV's Qt would end the process. QT_QPA_PLATFORM may name a platform without one."""
    if sys.platform == "linux" and not any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"))):
        raise InputError(f"{what}: there is no screen (DISPLAY is not set)")

"""`detector demo`: objects in a video, camera or stream, as lines, JSON, images, a video and live feeds (demo.c)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path

import numpy as np

from darknet_cli.detect import save_jpeg, show
from darknet_cli.grammar import Words
from darknet_cli.network import (
    class_names,
    device_of,
    option,
    print_layer_times,
    print_network,
    print_weights,
    stdout,
)
from darknet_cli.objects import Box, JsonList, boxes_of, json_entry, listing, predict, video_lines, visible
from darknet_cli.streams import Broadcaster, post, post_target
from data.batches import batches_of
from data.formats.darknet import read_data
from data.frames import Failure, Frame, Frames, open_frames
from data.image import Image, jpeg
from data.video import VIDEO_SUFFIXES, VideoWriter
from inference.model import AUTO, TORCH, open_model
from inference.predictor import Classifier, Model
from inference.results import best_classes, shown
from models.heads.yolo import NO_EMBEDDING, YoloSection
from utils.cli import stop_request
from utils.draw import annotate
from utils.errors import InputError, RunError
from utils.files import atomic_write

_CLEAR = "\033[H\033[J"
_STREAM_QUALITY = 40


class Speed:
    """Frames per second as printed by the original: smoothed, and the mean of the last 3 seconds."""

    def __init__(self) -> None:
        self.now = self.mean = 0.0
        self._start = self._before = time.perf_counter()
        self._frames = 0

    def tick(self) -> None:
        after = time.perf_counter()
        self.now = 0.9 * self.now + 0.1 / max(after - self._before, 1e-9)
        self._before, self._frames = after, self._frames + 1
        if after - self._start >= 3:
            self.mean = self._frames / (after - self._start)
            self._start, self._frames = after, 0


def demo(words: Words) -> None:
    """`detector demo DATA CFG WEIGHTS [VIDEO]` or `-c N` (demo.c demo)."""
    options = read_data(words.at(2, "the .data file"))
    stdout("Demo\n")
    cfg, source = words.at(3, "the cfg file"), words.get(5)
    target = post_target(words["-http_post_host"]) if words["-http_post_host"] else None
    plan = print_network(cfg)
    if any(
        isinstance(step.section, YoloSection) and step.section.embedding_layer != NO_EMBEDDING for step in plan.heads
    ):
        text = "embedding_layer: tracking by embeddings is not supported; the boxes are the same without this key"
        raise InputError(f"{cfg}: {text}, and YOLO.track of the Python package tracks objects by their boxes")
    print_weights(plan, words.get(4))
    timed = bool(words["-benchmark_layers"])
    model = open_model(words.get(4), cfg=cfg, device=device_of(words), backend=TORCH if timed else AUTO)
    model.expect(None)
    if isinstance(model, Classifier):
        raise InputError(f"{cfg}: is a classifier, expected a detector")
    stdout(f"video file: {source}\n" if source else f"Webcam index: {words['-c']}\n")
    model.names = _names(model, options, cfg)
    if timed:
        print_layer_times(model)
    with ExitStack() as stack:
        frames = stack.enter_context(closing(_frames(source, words["-c"])))
        request = stack.enter_context(stop_request(frames.stop))
        outputs = _Outputs(words, model.names, stack, target, source or f"camera {words['-c']}")
        letter_box = words["-letter_box"] or plan.net.letter_box
        start = time.perf_counter()
        for frame in _window(frames, max(1, words["-avgframes"]), once=words["-benchmark"]):
            kernel = "darknet" if letter_box else "opencv"
            found, _ = predict(model, frame, listing(words["-thresh"]), letter_box=letter_box, kernel=kernel)
            drawn = annotate(frame.image, visible(found, model.names), model.names) if outputs.draws else frame.image
            outputs.add(frame, drawn, boxes_of(found, frame.size_wh))
            spent = time.perf_counter() - start
            if 0 < words["-time_limit_sec"] < spent:
                now = time.time()
                stdout(f" start_time_lim = {1e6 * (now - spent):f}, get_time_point() = {1e6 * now:f}, "
                    f"time spent = {1e6 * spent:f} \n")  # fmt: skip
                break
            if request.made:
                break
        if request.made:
            raise KeyboardInterrupt
        outputs.close()


def _names(model: Model, options: Mapping[str, str], cfg: str) -> tuple[str, ...]:
    names, classes = class_names(options), int(option(options, "classes", "20"))
    if classes != model.classes:
        stdout(f"\n Parameters don't match: in cfg-file classes={model.classes}, in data-file classes={classes} \n")
        raise RunError(f"classes={classes} in the .data file, {model.classes} in {cfg}")
    if len(names) < classes:
        raise RunError(f"the names file has {len(names)} names for {classes} classes")
    return names


def _frames(source: str | None, camera: int) -> Frames:
    if source is not None and "://" not in source and Path(source).suffix.lower() not in VIDEO_SUFFIXES:
        raise InputError(f"{source}: expected a video; use 'detector test' for images")
    return open_frames(str(camera) if source is None else source)


def _window(frames: Iterable[Frame | Failure], avgframes: int, *, once: bool) -> Iterator[Frame]:
    """Yield the frames that the original reports. As it reads ahead, it drops the first avgframes / 2 and the last (demo.c demo).

    once: -benchmark, which repeats one frame forever. Raises InputError for a video that cannot be read to its end.
    """
    for frame in islice(_all_but_last(frames), avgframes // 2, None):
        yield frame
        while once:
            yield frame


def _all_but_last(frames: Iterable[Frame | Failure]) -> Iterator[Frame]:
    before: Frame | None = None
    for item in frames:
        if isinstance(item, Failure):
            raise RunError(item.reason)
        if before is not None:
            yield before
        else:
            stdout("Video stream: {} x {} \n".format(*item.size_wh))
        before = item


class _Outputs:
    """Everything that is printed, written and sent for a frame. The first 1 + skip frames are not shown."""

    def __init__(
        self, words: Words, names: tuple[str, ...], stack: ExitStack, target: tuple[str, str] | None, source: str
    ) -> None:
        self._words, self._names, self._target, self._source = words, names, target, source
        self._count = 0
        self._speed = Speed()
        self._video: VideoWriter | None = None
        self.draws = not words["-benchmark"] and not words["-dontdraw_bbox"]
        path, suffix = words["-out_filename"], Path(words["-out_filename"] or "").suffix.lower()
        if path and suffix not in VIDEO_SUFFIXES:
            raise InputError(f"{path}: unknown container, expected one such as .mp4, .avi or .mkv")
        entries, live, feed = words["-json_file_output"], words["-json_port"], words["-mjpeg_port"]
        self._entries = JsonList(stack.enter_context(atomic_write(entries))) if entries else None
        self._live = stack.enter_context(Broadcaster.of_json(live)) if live > 0 else None
        self._feed = stack.enter_context(Broadcaster.of_mjpeg(feed)) if feed > 0 else None
        self._stack = stack

    def add(self, frame: Frame, drawn: Image, boxes: list[Box]) -> None:
        words, names = self._words, self._names
        self._count += 1
        stdout(f"{_CLEAR}Objects:\n\n")
        entry = json_entry(self._count, None, boxes, names)
        if self._live:
            self._live.send(entry.encode("utf-8", "replace"))
            stdout(" JSON-stream sent. \n")
        if self._entries:
            self._entries.add(entry)
        if self._target:
            self._post(boxes)
        visible_now = self._count > 1 + words["-s"]
        if visible_now and self.draws:
            for line in video_lines(boxes, names, frame.size_wh, ext_output=words["-ext_output"]):
                stdout(f"{line}\n")
        stdout(f"\nFPS:{self._speed.now:.1f} \t AVG_FPS:{self._speed.mean:.1f}\n")
        self._speed.tick()
        if not visible_now:
            return
        if words["-prefix"]:
            save_jpeg(f"{words['-prefix']}_{self._count:08d}.jpg", drawn)
        elif not words["-dont_show"] and not words["-benchmark"]:
            show(drawn, 1)
        if self._feed:
            self._feed.send_jpeg(jpeg(drawn, _STREAM_QUALITY))
            stdout(" MJPEG-stream sent. \n")
        if words["-out_filename"]:
            self._write(frame, drawn)

    def _post(self, boxes: list[Box]) -> None:
        for box in boxes:
            for class_id, score in box.scores:
                if shown(self._names, class_id):
                    stdout(f"{self._names[class_id]}: {score * 100:.0f}% ")
        assert self._target is not None
        if post(self._target, boxes, self._names, self._source) and self._words["-time_limit_sec"] > 0:
            self._target = None  # with a time limit, the original posts only once

    def _write(self, frame: Frame, drawn: Image) -> None:
        if self._video is None:
            path = Path(self._words["-out_filename"])
            fps = int(frame.video.fps) if frame.video else 25
            codec = "mp4v" if path.suffix.lower() in (".mp4", ".m4v", ".mov") else "DIVX"
            self._video = self._stack.enter_context(VideoWriter(path, fps, codec))
        self._video.write(drawn)
        stdout("\n cvWriteFrame \n")

    def close(self) -> None:
        """Complete all outputs and print the last lines."""
        stdout("Stream closed.\ninput video stream closed. \n")
        if self._video:
            self._video.close()
            stdout(" closing... closed!output_video_writer closed. \n")
        if self._entries:
            self._entries.close()


def classifier_demo(words: Words) -> None:
    """`classifier demo DATA CFG WEIGHTS [VIDEO]` or `-c N` (classifier.c demo_classifier)."""
    options = read_data(words.at(2, "the .data file"))
    stdout("Classifier Demo\n")
    cfg = words.at(3, "the cfg file")
    print_weights(print_network(cfg), words.get(4))
    model = open_model(words.get(4), cfg=cfg, device=device_of(words))
    model.expect(None)
    if not isinstance(model, Classifier):
        raise InputError(f"{cfg}: is a detector, expected a classifier")
    names, top = class_names(options), min(int(options.get("top", "1")), model.classes)
    if len(names) < model.classes:
        raise InputError(f"the names file has {len(names)} names for {model.classes} classes")
    with closing(_frames(words.get(5), words["-c"])) as frames:
        speed, start, count, mean = 0.0, time.perf_counter(), 0, 0.0
        for frame in _black(model) if words["-benchmark"] else frames:
            if isinstance(frame, Failure):
                raise RunError(frame.reason)
            # The whole frame is resized here, while `predict` uses only its centre.
            preprocess = dataclasses.replace(model.preprocessing(letter_box=False), centre=False)
            step = next(iter(model.run(batches_of([frame], preprocess))))
            probabilities = step.found[0][0]
            stdout(_CLEAR)
            if words["-benchmark"]:
                stdout(f"\rFPS: {speed:.2f} \t AVG_FPS = {mean:.2f} ")
            else:
                stdout(f"\rFPS: {speed:.2f}  (use -benchmark command line flag for correct measurement)\n")
                for class_id in best_classes(probabilities, top):
                    stdout(f"{100 * probabilities[class_id]:.1f}%: {names[class_id]}\n")
                stdout("\n")
                if not words["-dont_show"]:
                    show(frame.image, 10)
            now = 1000 / max(step.speed["inference"], 1e-6)
            speed = 0.9 * speed + 0.1 * now if speed else now
            count += 1
            if (spent := time.perf_counter() - start) >= 3:
                mean, count, start = count / spent, 0, time.perf_counter()


def _black(model: Model) -> Iterator[Frame]:
    """Yield a black image forever."""
    width, height = model.size_wh
    while True:
        yield Frame(image=np.zeros((height, width, 3), np.uint8), path="black")

"""Detections in the original's form: box by box, and as console lines, JSON and label files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from data.batches import batches_of
from data.frames import Frame
from inference.predictor import Model, NmsOptions
from inference.results import box_text, shown
from utils.detections import Detections


@dataclass(frozen=True)
class Box:
    """One box.

    xyxy: in pixels of the image.
    rel: centre and size relative to the image.
    scores: (class id, score), by class id.
    """

    xyxy: tuple[float, ...]
    rel: tuple[float, ...]
    scores: tuple[tuple[int, float], ...]

    @property
    def best(self) -> tuple[int, float]:
        """The best class and its score; ties go to the lower class id."""
        return max(self.scores, key=lambda item: item[1])


def boxes_of(found: Detections, size_wh: tuple[int, int]) -> list[Box]:
    """Return the boxes in the original's order after NMS; `found` must have ranks."""
    assert found.ranks is not None
    width, height = size_wh
    rows: dict[int, list[int]] = {}
    for row, rank in enumerate(found.ranks.tolist()):
        rows.setdefault(rank, []).append(row)
    boxes = []
    for _, mine in sorted(rows.items()):
        left, top, right, bottom = (float(value) for value in found.xyxy[mine[0]])
        rel = ((left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height)
        scores = sorted((int(found.class_ids[row]), float(found.scores[row])) for row in mine)
        boxes.append(Box((left, top, right, bottom), rel, tuple(scores)))
    return boxes


def listing(thresh: float) -> NmsOptions:
    """Return the NMS settings of all commands that report objects: 0.45, ignoring -iou_thresh (detector.c test_detector)."""
    return NmsOptions(conf=thresh, iou=0.45, rank_above=thresh)


def predict(
    model: Model, frame: Frame, nms: NmsOptions, *, letter_box: bool | None = None, kernel: str = "darknet"
) -> tuple[Any, float]:
    """Return the Detections or probabilities of one image, and the network's time in milliseconds."""
    batches = batches_of([frame], model.preprocessing(letter_box, kernel))
    step = next(iter(model.run(batches, [nms])))
    return step.found[0][0], step.speed["inference"]


def visible(found: Detections, names: Sequence[str]) -> Detections:
    """Return the detections of classes that are reported."""
    return found.select(np.array([shown(names, class_id) for class_id in found.class_ids.tolist()], np.bool_))


def video_lines(
    boxes: Sequence[Box], names: Sequence[str], size_wh: tuple[int, int], *, ext_output: bool
) -> Iterator[str]:
    """Yield the lines of `detector demo`, one per box (image_opencv.cpp draw_detections_cv_v3)."""
    for box in boxes:
        reported = [item for item in box.scores if shown(names, item[0])]
        if not reported:
            continue
        text = ", ".join(f"{names[class_id]}: {np.float32(score) * 100:.0f}% " for class_id, score in reported)
        if ext_output:
            left, top, right, bottom = box.xyxy
            width, height = min(right - left, size_wh[0]), min(bottom - top, size_wh[1])
            text += box_text(max(int(left), 0), max(int(top), 0), width, height)
        yield text


def label_lines(boxes: Sequence[Box]) -> str:
    """Return the text of -save_labels: a line per box with its best class."""
    return "".join(f"{box.best[0]} {' '.join(f'{value:2.4f}' for value in box.rel)}\n" for box in boxes)


def json_entry(frame_id: int, filename: str | None, boxes: Sequence[Box], names: Sequence[str]) -> str:
    """Return one entry of the JSON list (image.c detection_to_json); unlike in the original, text is escaped."""
    objects = [
        f'  {{"class_id":{class_id}, "name":{_quoted(names[class_id])}, "relative_coordinates":{{"center_x":{box.rel[0]:f}, '
        f'"center_y":{box.rel[1]:f}, "width":{box.rel[2]:f}, "height":{box.rel[3]:f}}}, "confidence":{score:f}}}'
        for box in boxes
        for class_id, score in box.scores
        if shown(names, class_id)
    ]
    name = f' "filename":{_quoted(filename)}, \n' if filename is not None else ""
    listed = ", \n".join(objects)
    return f'{{\n "frame_id":{frame_id}, \n{name} "objects": [ \n{listed}\n ] \n}}'


def _quoted(text: str) -> str:
    return json.dumps(os.fsencode(text).decode("utf-8", "replace"), ensure_ascii=False)


class JsonList:
    """Writer of the JSON list to an open file, entry by entry, so that it need not fit in memory."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._entries = stream, 0
        stream.write(b"[\n")

    def add(self, entry: str) -> None:
        self._stream.write((", \n" if self._entries else "").encode() + entry.encode("utf-8", "replace"))
        self._entries += 1

    def close(self) -> None:
        self._stream.write(b"\n]")

"""Results of one image: boxes or class probabilities, and methods to draw, save and convert them."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from data.image import save_image
from inference.recorder import require_screen
from inference.results import Result, best_classes, found_text, label_text, save_crops
from utils.detections import Detections
from utils.draw import annotate
from utils.errors import InputError
from utils.files import write_text
from utils.packages import need

Floats: TypeAlias = NDArray[np.float32]
Index: TypeAlias = "int | slice | Sequence[int] | Sequence[bool] | NDArray[np.bool_] | NDArray[np.int64]"


@dataclass(frozen=True, eq=False)
class Boxes:
    """The n boxes of one image, best score first; a box with several classes above the threshold is listed once per class.

    xyxy: float32 (n, 4), left, top, right, bottom in pixels of the original image.
    conf: float32 (n,), scores in (0, 1].
    cls: int64 (n,), class indices.
    orig_shape: (height, width) of the image.
    id: int64 (n,), track numbers; None without tracking.
    """

    xyxy: Floats
    conf: Floats
    cls: NDArray[np.int64]
    orig_shape: tuple[int, int]
    id: NDArray[np.int64] | None = None

    @property
    def xywh(self) -> Floats:
        """float32 (n, 4): centre, width and height in pixels."""
        low, high = self.xyxy[:, :2], self.xyxy[:, 2:]
        return np.concatenate([(low + high) / 2, high - low], axis=1)

    @property
    def xyxyn(self) -> Floats:
        """`xyxy` relative to the image's width and height."""
        return self.xyxy / self._size_whwh

    @property
    def xywhn(self) -> Floats:
        """`xywh` relative to the image's width and height."""
        return self.xywh / self._size_whwh

    @property
    def data(self) -> Floats:
        """float32 (n, 6): xyxy, conf, cls."""
        return np.column_stack([self.xyxy, self.conf, self.cls]).astype(np.float32)

    def numpy(self) -> Boxes:
        """Return the boxes themselves: their arrays are NumPy arrays already."""
        return self

    cpu = numpy

    def __len__(self) -> int:
        return len(self.conf)

    def __getitem__(self, index: Index) -> Boxes:
        rows = _rows(index, len(self))
        tracks = None if self.id is None else self.id[rows]
        return dataclasses.replace(self, xyxy=self.xyxy[rows], conf=self.conf[rows], cls=self.cls[rows], id=tracks)

    def __iter__(self) -> Iterator[Boxes]:
        return (self[place] for place in range(len(self)))

    @property
    def _size_whwh(self) -> Floats:
        height, width = self.orig_shape
        return np.array([width, height, width, height], np.float32)


@dataclass(frozen=True, eq=False)
class Probs:
    """Class probabilities of one image. data: float32 (classes,), in [0, 1]."""

    data: Floats

    @property
    def top1(self) -> int:
        """Index of the most probable class."""
        return int(self.data.argmax())

    @property
    def top1conf(self) -> float:
        return float(self.data.max())

    @property
    def top5(self) -> list[int]:
        """Indices of the five most probable classes, best first."""
        return best_classes(self.data, 5)

    @property
    def top5conf(self) -> Floats:
        return self.data[self.top5]

    def __len__(self) -> int:
        return len(self.data)


class Results:
    """Results of one image or video frame.

    path: file or URL; "image0" for an image in memory.
    frame, time_s: frame number in the video, from 0, and its time in seconds; None for an image.
    names: class index to name.
    speed: milliseconds per stage: preprocess, inference, postprocess.
    boxes: empty for a classifier.
    probs: class probabilities of a classifier, else None.
    """

    def __init__(self, result: Result, boxes: Boxes | None = None) -> None:
        frame, self._result = result.frame, result
        self.path, self.names, self.speed = frame.path, dict(enumerate(result.names)), result.speed
        self.frame: int | None = None if frame.video is None else frame.index
        self.time_s: float | None = None if frame.video is None else frame.time_s
        self.probs = None if result.probabilities is None else Probs(result.probabilities)
        found = result.detections
        self.boxes = Boxes(found.xyxy, found.scores, found.class_ids, self.orig_shape) if boxes is None else boxes

    @cached_property
    def orig_img(self) -> NDArray[np.uint8]:
        """The original image: uint8 (height, width, 3), BGR as in OpenCV."""
        return np.ascontiguousarray(self._result.frame.image[..., ::-1])

    @property
    def orig_shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        width, height = self._result.frame.size_wh
        return height, width

    def __len__(self) -> int:
        """Number of boxes; 1 for a classifier."""
        return len(self.boxes) if self.probs is None else 1

    def __getitem__(self, index: Index) -> Results:
        """Return the results with only the boxes selected by an index, slice, index list or mask."""
        return Results(self._result, self.boxes[index]) if self.probs is None else self

    def __iter__(self) -> Iterator[Results]:
        return (self[place] for place in range(len(self)))

    def __repr__(self) -> str:
        where = self.path if self.frame is None else f"{self.path}, frame {self.frame}"
        return f"<Results of {where}: {self.verbose()}>"

    def with_tracks(self, rows: NDArray[np.int64], numbers: NDArray[np.int64]) -> Results:
        """Return the results with only the boxes in `rows`, and a track number for each."""
        return Results(self._result, dataclasses.replace(self.boxes[rows], id=numbers))

    def verbose(self) -> str:
        """Return one line: "2 dog, 1 cat", "no objects", or a classifier's best classes with their probabilities."""
        if self.probs is not None:
            return ", ".join(f"{self.names[each]} {self.probs.data[each]:.2f}" for each in self.probs.top5)
        return found_text(Counter(self.boxes.cls.tolist()), self._names)

    def plot(
        self, *, line_width: int | None = None, labels: bool = True, conf: bool = True, rgb: bool = False
    ) -> NDArray[np.uint8]:
        """Return a copy of the image with the boxes drawn on it: uint8 (height, width, 3), BGR, or RGB if `rgb`.

        line_width: width of box lines in pixels; None scales it with the image.
        labels, conf: whether to write class names and scores.
        """
        image = self._result.frame.image
        if self.probs is None:
            image = annotate(image, self._detections, self._names, thickness=line_width, labels=labels, scores=conf)
        return image if rgb else np.ascontiguousarray(image[..., ::-1])

    def save(self, path: str | Path | None = None, **options: Any) -> Path:
        """Write `plot(**options)` as an image file and return its path.

        path: the extension selects the format; default: "results_<name>.jpg" in the current folder.
        """
        path = Path(f"results_{self._result.frame.stem}.jpg" if path is None else path)
        save_image(path, self.plot(**options, rgb=True))
        return path

    def save_crop(self, folder: str | Path) -> list[Path]:
        """Write a crop of each object to `folder/<class>/<name>_<number>.jpg` and return the paths."""
        return save_crops(Path(folder), dataclasses.replace(self._result, detections=self._detections))

    def save_txt(self, path: str | Path, *, save_conf: bool = False) -> Path:
        """Write a label file and return its path.

        Each line has class, centre x and y, width, height relative to the image [, score]; for a classifier, probability
        and name of one of the five best classes.
        """
        if self.probs is not None:
            text = "".join(f"{self.probs.data[each]:.6f} {self.names[each]}\n" for each in self.probs.top5)
        else:
            text = label_text(self._detections, self.orig_shape[::-1], with_scores=save_conf)
        write_text(path, text)
        return Path(path)

    def show(self) -> None:
        """Show the image inline in a notebook, else in a window until a key is pressed. Raises InputError without a screen."""
        try:
            from IPython import get_ipython
        except ImportError:
            notebook = False
        else:
            notebook = get_ipython() is not None
        if notebook:
            from IPython.display import display

            display(self)
            return
        require_screen("show")
        cv2.imshow(self.path, self.plot())
        cv2.waitKey()
        cv2.destroyWindow(self.path)

    def _repr_png_(self) -> bytes:
        return cv2.imencode(".png", self.plot())[1].tobytes()

    def summary(self) -> list[dict[str, Any]]:
        """Return a dict per object: name, class, confidence, box (x1, y1, x2, y2 in pixels) [, track_id]."""
        if self.probs is not None:
            pairs = zip(self.probs.top5, self.probs.top5conf.tolist(), strict=True)
            return [{"name": self.names[each], "class": each, "confidence": round(value, 6)} for each, value in pairs]
        boxes, rows = self.boxes, []
        for place, (xyxy, score, class_id) in enumerate(self._detections):
            corners = dict(zip(("x1", "y1", "x2", "y2"), (round(float(value), 3) for value in xyxy), strict=True))
            row = {"name": self.names[class_id], "class": class_id, "confidence": round(score, 6), "box": corners}
            rows.append(row if boxes.id is None else row | {"track_id": int(boxes.id[place])})
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return path, frame, size, speed and objects as JSON-serializable values."""
        height, width = self.orig_shape
        where = {"path": self.path, "frame": self.frame, "time_s": self.time_s, "width": width, "height": height}
        speed = {stage: round(value, 3) for stage, value in self.speed.items()}
        return {**where, "speed_ms": speed, "objects": self.summary()}

    def to_json(self, **options: Any) -> str:
        """Return `to_dict()` as JSON text. options: passed to json.dumps."""
        return json.dumps(self.to_dict(), **options)

    def to_df(self) -> Any:
        """Return a data frame with a row per object: pandas, or polars if pandas is not installed."""
        rows = [{**{k: v for k, v in row.items() if k != "box"}, **row.get("box", {})} for row in self.summary()]
        columns = ["name", "class", "confidence"]
        if self.probs is None:
            columns += ["x1", "y1", "x2", "y2"] + ["track_id"] * (self.boxes.id is not None)
        table = {name: [row[name] for row in rows] for name in columns}
        try:
            import pandas
        except ImportError:
            return need("polars", "pandas").DataFrame(table)
        return pandas.DataFrame(table)

    def to_supervision(self) -> Any:
        """Return the boxes as supervision.Detections, for that library's annotators, zones and trackers."""
        values = self._detections.to_dict(self._names)
        return need("supervision", "supervision").Detections(**values, tracker_id=self.boxes.id)

    @property
    def _names(self) -> tuple[str, ...]:
        return self._result.names

    @property
    def _detections(self) -> Detections:
        if self.probs is not None:
            raise InputError(f"{self.path}: the model is a classifier, its results have `probs` and no boxes")
        boxes = self.boxes
        return Detections(xyxy=boxes.xyxy, scores=boxes.conf, class_ids=boxes.cls)


def _rows(index: Index, count: int) -> Any:
    """Return an equivalent index that keeps the row dimension. Raises IndexError if out of range."""
    if isinstance(index, int | np.integer):
        if not -count <= index < count:
            raise IndexError(f"box {index} of {count}")
        return [int(index)]
    return index if isinstance(index, slice) else np.asarray(index, None if len(index) else np.int64)

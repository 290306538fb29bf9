"""`YOLO`: a model loaded from any supported file and run on any source of images."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import cv2
import numpy as np
import torch
from torch import nn

import export
import info
import test
import train
from cspyolo.results import Results
from data.frames import Failure, Frames, open_frames
from inference.backends import ExportedModel
from inference.engine import ENGINES
from inference.model import AUTO, BACKENDS, open_model
from inference.pipeline import predict_frames
from inference.predictor import Model, NmsOptions
from models.formats.files import LoadOptions, load_model
from models.shipped import FOLDER, shipped_model, shipped_models
from profiling.timing import time_forward
from utils.cli import EXIT_INTERRUPTED, EXIT_OK
from utils.errors import InputError, RunError
from utils.files import run_folder, write_text
from utils.letterbox import KERNELS
from utils.packages import is_installed, need

logger = logging.getLogger(__name__)

Size = int | Sequence[int]
_CHANNELS_TO_RGB = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}

# Name -> class, and its thresholds that are set to the detector's so that every reported box may start a track.
_TRACKERS = {
    "bytetrack": ("ByteTrackTracker", ("track_activation_threshold", "high_conf_det_threshold")),
    "ocsort": ("OCSORTTracker", ("high_conf_det_threshold",)),
    "sort": ("SORTTracker", ("track_activation_threshold",)),
}


class YOLO:
    """A Darknet model: detector or classifier.

    model: a cfg file (with `weights`); a .pt, .safetensors, .onnx, .xml or .torchscript file; or the name of a shipped
        model, see `YOLO.shipped()`. A cfg alone gets random weights, to train or inspect.
    names: a names file, a .data file, or the names themselves; default: those in the model file, else class 0, class 1, ...
    device: "cpu", "mps", "0", "cuda:1"; "" selects a GPU if there is one.
    backend: "torch", "onnxruntime", "openvino", "opencv", "torchscript", or "auto", see `open_model`.
    img_size: input size, one number or (width, height); None: the cfg's.
    half: float16 on a GPU, bfloat16 with OpenVINO on a CPU.
    ema: load the EMA weights of a training checkpoint.
    partial: load the layers of a .weights file that fit the cfg.

    Raises InputError for files and options that do not go together.
    """

    def __init__(
        self,
        model: str | Path = "scenes",
        weights: str | Path | None = None,
        names: str | Path | Sequence[str] | Mapping[int, str] | None = None,
        *,
        device: str = "",
        backend: str = AUTO,
        img_size: Size | None = None,
        half: bool = False,
        ema: bool = False,
        partial: bool = False,
    ) -> None:
        self.cfg, self.weights, own_names = _files(str(model), weights)
        if isinstance(names, Mapping):
            names = [names[each] for each in sorted(names)]
        self._names = own_names if names is None else names
        self._options: dict[str, Any] = {"device": device, "ema": ema, "partial": partial}
        self._backend, self._half, self._size = backend, half, _pair(img_size)
        self._opened: tuple[tuple[int, int] | None, Model] | None = None
        self._model()

    def __getstate__(self) -> dict[str, Any]:
        """For other processes: they open the model's files themselves, since an engine's model cannot be pickled."""
        return self.__dict__ | {"_opened": None}

    @staticmethod
    def shipped() -> list[str]:
        """Return the names of the models that come with the package."""
        return shipped_models()

    @property
    def task(self) -> str:
        """Kind of model, "detect" or "classify"."""
        return self._model().task

    @property
    def names(self) -> dict[int, str]:
        """Class index to name."""
        return dict(enumerate(self._model().names))

    @property
    def device(self) -> torch.device:
        return self._model().device

    @property
    def network(self) -> nn.Module:
        """A new torch module with the model's weights, to train, modify or extract features from.

        `network(images)` returns the outputs of the heads, `network.outputs(images, layers)` those of any layers.
        Raises InputError for an exported model, which has no torch module.
        """
        if isinstance(self._model().network, ExportedModel):
            raise InputError(f"{self.weights}: an exported model has no PyTorch module; open its .weights or .pt file")
        width, height = self._size or (None, None)
        reading = LoadOptions(cfg=self.cfg, width=width, height=height, **self._options | {"device": self.device})
        return load_model(self.weights, reading)[0]

    @overload
    def predict(self, source: Any, *, stream: Literal[True], **options: Any) -> Iterator[Results]: ...

    @overload
    def predict(self, source: Any, *, stream: bool = False, **options: Any) -> list[Results]: ...

    def predict(  # type: ignore[misc]
        self,
        source: Any,
        *,
        conf: float = 0.25,
        iou: float = 0.45,
        classes: int | str | Sequence[int | str] | None = None,
        img_size: Size | None = None,
        augment: bool = False,
        batch: int = 1,
        stream: bool = False,
        rgb: bool = False,
        max_det: int | None = 1000,
        agnostic_nms: bool = False,
        letter_box: bool | None = None,
        resize: str = "darknet",
        vid_stride: int = 1,
    ) -> list[Results] | Iterator[Results]:  # typed as a list above, for indexing; for a video, an iterator
        """Return the Results of every image in `source` as a list, or as a generator for video and with `stream`.

        source: file, folder, glob ("folder/**" includes subfolders), .txt list, video, camera number or URL; a NumPy
            array uint8 (height, width[, 1, 3 or 4]), BGR as in OpenCV, or RGB if `rgb`; a PIL image; a torch tensor
            (3, height, width), RGB, uint8 or floats in [0, 1]; or a list of these.
        conf, iou: confidence threshold and IoU threshold of NMS.
        classes: report only these, by index or name.
        img_size: override the input size.
        augment: also run on the mirrored image.
        batch: images per forward pass.
        stream: return a generator; it holds one batch at a time.
        max_det: maximum number of boxes per image.
        agnostic_nms: apply NMS across classes.
        letter_box: keep the aspect ratio; None: as set in the cfg.
        resize: "darknet" (the original's interpolation) or "opencv".
        vid_stride: use every Nth frame of a video.

        Unreadable files in a folder or list are logged and skipped.
        Raises InputError for a source that does not exist and for values out of range.
        """
        model = self._ready(img_size)
        wanted = None if classes is None else model.class_ids(_listed(classes), "classes")
        nms = NmsOptions(
            conf=_fraction("conf", conf),
            iou=_fraction("iou", iou),
            agnostic=agnostic_nms,
            max_det=max_det,
            classes=wanted,
        )
        if batch < 1:
            raise InputError(f"batch: cannot be {batch}, expected 1 or more")
        if resize not in KERNELS:
            raise InputError(f"resize: cannot be {resize!r}, expected {' or '.join(KERNELS)}")
        frames = open_frames(_in_rgb(source, rgb), vid_stride=vid_stride)
        items = predict_frames(
            model, frames, nms, letter_box=letter_box, kernel=resize, batch_size=batch, augment=augment
        )
        results = _results(frames, items)
        return results if stream or frames.has_video else list(results)

    __call__ = predict

    def track(self, source: Any, *, tracker: str = "bytetrack", **options: Any) -> Iterator[Results]:
        """Yield the results of `predict` on a video, camera or stream, with track numbers in `boxes.id`.

        Boxes without a confirmed track are left out.
        tracker: "bytetrack", "ocsort" or "sort" from the package trackers (`pip install cspyolo[track]`).
        """
        follow = Tracker(tracker, options.get("conf", 0.25))
        for result in self.predict(source, **options, stream=True):
            yield follow(result)

    def train(self, data: str | Path | None = None, **options: Any) -> Path:
        """Train like train.py, load the best weights and return the run folder.

        data: a data set; None: drawn scenes.
        options: flags of train.py with underscores: iterations=2000, batch_size=32, img_size=320, ...

        On Ctrl-C the training state is saved before KeyboardInterrupt is raised.
        """
        with tempfile.TemporaryDirectory() as own:
            cfg = self.cfg
            if cfg is None:  # the weights file contains it
                cfg = f"{own}/{Path(self.weights or '').stem}.cfg"
                self._model().network.plan.cfg.write(cfg)
            start = {"cfg": cfg, "weights": self.weights, "data": data, "project": "runs/train"}
            folder = _run(train, start | options)
        kept = [folder / "weights" / f"{name}.pt" for name in ("best", "last")]
        best = next((path for path in kept if path.exists()), None)
        if best is None:
            raise RunError(f"{folder}: the training saved no weights")
        self.cfg, self.weights, self._names, self._opened = None, str(best), None, None
        return folder

    def val(self, data: str | Path, **options: Any) -> dict[str, Any]:
        """Evaluate like test.py and return the content of its metrics.json. options: flags of test.py with underscores."""
        folder = _run(test, self._flags() | {"data": data, "project": "runs/test"} | options)
        return dict(json.loads((folder / "metrics.json").read_text("utf-8")))

    def export(self, include: str | Sequence[str] = "onnx", **options: Any) -> list[Path]:
        """Export like export.py and return the paths of the files.

        include: one or more of "onnx", "openvino" and "torchscript".
        options: flags of export.py with underscores: dynamic="batch", half=True, output="nms", out="folder/name"
            (default: next to the weights; for a shipped model, in the current folder), ...
        """
        formats, base = _listed(include), Path(self.weights or "").with_suffix("")
        out = Path(options.pop("out", None) or (base.name if base.parent == FOLDER else base))
        with tempfile.TemporaryDirectory() as folder:
            names = Path(folder) / "model.names"
            write_text(names, "".join(f"{name}\n" for name in self._model().names))
            _call(export, self._flags() | {"names": names, "include": formats, "out": out} | options)
        return [out.with_name(out.name + export.FORMATS[each][0]) for each in formats]

    def info(self) -> dict[str, Any]:
        """Print the layer table of info.py and return layers, totals and unused keys as plain values."""
        plan = self._model().network.plan
        print(info.full_text(plan))
        return info.describe(plan.cfg.path, plan)

    def benchmark(self, backends: Sequence[str] = (), *, runs: int = 20) -> list[dict[str, Any]]:
        """Time the network on one image with each backend; return a dict per backend: backend, milliseconds, fps.

        backends: default: all installed ones.
        runs: passes per backend; the median is reported.
        """
        chosen = backends or [each for each in BACKENDS[1:] if each in ("torch", "opencv") or is_installed(each)]
        rows = []
        with tempfile.TemporaryDirectory() as folder:
            for backend in chosen:
                if backend in ("torch", *ENGINES):
                    model = self._open(self._size, backend)
                else:
                    kind = "torchscript" if backend == "torchscript" else "onnx"
                    (path,) = self.export(kind, out=f"{folder}/{backend}", no_check=True)
                    model = open_model(path, backend=backend, device=self._options["device"])
                width, height = model.size_wh
                images = torch.rand(1, model.channels, height, width, device=model.device)
                seconds = time_forward(model.forward, images, runs)
                rows.append(
                    {"backend": backend, "milliseconds": round(1000 * seconds, 2), "fps": round(1 / seconds, 1)}
                )
        return rows

    def _model(self, size: tuple[int, int] | None = None) -> Model:
        """Return the model opened at an input size; only the last one is cached."""
        size = size or self._size
        opened = self._opened  # another thread may open another size
        if opened is None or opened[0] != size:
            self._opened = opened = size, self._open(size, self._backend)
        return opened[1]

    def _open(self, size: tuple[int, int] | None, backend: str) -> Model:
        return open_model(
            self.weights,
            cfg=self.cfg,
            names=self._names,
            backend=backend,
            half=self._half,
            img_size=size,
            **self._options,
        )

    def _ready(self, img_size: Size | None) -> Model:
        if self.weights is None:
            raise InputError(f"{self.cfg}: has no weights yet; pass them as the second argument, or train the model")
        return self._model(_pair(img_size))

    def _flags(self) -> dict[str, Any]:
        """Return the script flags that name this model."""
        return {"cfg": self.cfg, "weights": self.weights}


class Tracker:
    """A callable that tracks boxes through the results of consecutive frames; a new video starts new tracks.

    conf: confidence threshold of the boxes.
    Raises InputError for an unknown tracker and if the package trackers is not installed.
    """

    def __init__(self, name: str = "bytetrack", conf: float = 0.25) -> None:
        if name not in _TRACKERS:
            raise InputError(f"tracker: unknown {name!r}, expected {', '.join(_TRACKERS)}")
        kind, thresholds = _TRACKERS[name]
        self._class, self._settings = getattr(need("trackers", "trackers"), kind), dict.fromkeys(thresholds, conf)
        self._path: str | None = None
        self._tracker: Any = None

    def __call__(self, results: Results) -> Results:
        """Return the results with only the boxes that have a confirmed track, and their track numbers."""
        if results.probs is not None:
            raise InputError("track: the model is a classifier, it has no boxes to track")
        if results.path != self._path:
            self._path, self._tracker = results.path, self._class(**self._settings)
        found = results.to_supervision()
        found.data["row"] = np.arange(len(found))
        tracked = self._tracker.update(found)
        confirmed = tracked.tracker_id >= 0 if len(tracked) else np.zeros(0, bool)
        rows = np.asarray(tracked.data.get("row", ()), np.int64)[confirmed]
        numbers = np.asarray(tracked.tracker_id, np.int64)[confirmed] if len(tracked) else np.zeros(0, np.int64)
        return results.with_tracks(rows, numbers)


def _files(model: str, weights: str | Path | None) -> tuple[str | None, str | None, str | None]:
    """Return cfg, weights and names file of the model the user named. Raises InputError."""
    if weights is not None:
        return model, str(weights), None
    path = Path(model)
    if path.suffix == ".cfg":
        return model, None, None
    if path.suffix == ".weights":
        raise InputError(f"{model}: expected the cfg too: YOLO({str(path.with_suffix('.cfg'))!r}, {model!r})")
    return shipped_model(model) or (None, model, None)


def _results(frames: Frames, items: Iterator[Any]) -> Iterator[Results]:
    with contextlib.closing(frames), contextlib.closing(items):  # type: ignore[type-var]
        for item in items:
            if isinstance(item, Failure):
                logger.warning("skipped: %s", item.reason)
            else:
                yield Results(item)


def _in_rgb(source: Any, rgb: bool) -> Any:
    """Convert arrays from OpenCV's channel order to RGB; return anything else unchanged. Raises InputError for non-images."""
    if isinstance(source, list | tuple):
        return [_in_rgb(each, rgb) for each in source]
    if not isinstance(source, np.ndarray):
        return source
    channels = 1 if source.ndim == 2 else source.shape[2] if source.ndim == 3 else 0
    if source.dtype != np.uint8 or channels not in _CHANNELS_TO_RGB or not source.size:
        raise InputError(
            f"source: the array is {source.dtype} {source.shape}, expected uint8 (height, width) or (height, width, 1, 3 or 4)"
        )
    if rgb and channels == 3:
        return source
    code = cv2.COLOR_RGBA2RGB if rgb and channels == 4 else _CHANNELS_TO_RGB[channels]
    return cv2.cvtColor(np.ascontiguousarray(source), code)


def _fraction(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise InputError(f"{name}: cannot be {value}, expected a number between 0 and 1")
    return float(value)


def _pair(size: Size | None) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = tuple(_listed(size))
    if len(sides) not in (1, 2) or any(not isinstance(side, int) or side < 1 for side in sides):
        raise InputError(f"img_size: cannot be {size}, expected a whole number, or width and height")
    return sides[0], sides[-1]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def _run(script: Any, flags: dict[str, Any]) -> Path:
    """Run a script in a run folder chosen beforehand and return the folder."""
    folder = run_folder(str(flags["project"]), str(flags.get("name", "exp")), exist_ok=bool(flags.get("exist_ok")))
    _call(script, flags | {"project": folder.parent, "name": folder.name, "exist_ok": True})
    return folder


def _call(script: Any, flags: Mapping[str, Any]) -> None:
    """Run a script with flags by name.

    Raises InputError for flags that it does not have, RunError if it fails and KeyboardInterrupt after Ctrl-C.
    """
    arguments: list[str] = []
    for key, value in flags.items():
        flag = f"--{key.replace('_', '-')}"
        if value is True:
            arguments.append(flag)
        elif value is not None and value is not False:
            arguments += [flag, *map(str, _listed(value))]
    code = script.main(arguments)
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if code != EXIT_OK:
        raise RunError(f"{script.__name__}: ended with exit code {code}")

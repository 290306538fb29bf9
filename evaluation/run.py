"""One pass over a data set: images in, detections out, with a stopwatch at every station."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from data.evaluation_set import ImageLoader
from evaluation.metrics.darknet import SCORE_THRESH
from evaluation.options import EvaluationOptions
from inference.classifier import Classifier
from inference.detector import Selection
from inference.opening import RuntimeOptions, open_model, open_predictor
from inference.predictor import Predictor
from models.formats.files import LoadOptions
from utils.cli import EXIT_OK
from utils.detections import Detections
from utils.device import select_device
from utils.errors import InputError, RunError
from utils.letterbox import Letterbox

logger = logging.getLogger(__name__)


class Batch(Protocol):
    """What the pass needs of a batch; data/image_loader.py makes it."""

    @property
    def images(self) -> Tensor: ...
    @property
    def letterboxes(self) -> Sequence[Letterbox]: ...
    @property
    def indices(self) -> Sequence[int]: ...
    @property
    def failures(self) -> Sequence[tuple[int, str]]: ...
    @property
    def seconds(self) -> float: ...


Forward = Callable[[Tensor], Any]
Boxes = Callable[[Any, Sequence[Letterbox]], list[Detections]]


@dataclass(kw_only=True)
class Pass:
    """What a pass has found so far; complete or not, it can be measured.

    found: for each way of making boxes the detections of each image, by the image's place in the list.
    sizes_wh: pixels of each image. failures: why an image could not be read. Seconds add up over the pass:
    `reading` in the threads that read, `waiting` for them, `network`, `boxes` (one entry for each way).
    interrupted: set by whoever ended the pass early.
    """

    found: list[dict[int, Detections]] = field(default_factory=list)
    sizes_wh: dict[int, tuple[int, int]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    reading: float = 0.0
    waiting: float = 0.0
    network: float = 0.0
    boxes: list[float] = field(default_factory=list)
    interrupted: bool = False

    @property
    def order(self) -> list[int]:
        """Places in the list of the images measured, in order."""
        return sorted(self.sizes_wh)

    def detections(self, way: int) -> list[Detections]:
        """Detections of every image measured, in `order`."""
        return [self.found[way][index] for index in self.order]

    def milliseconds(self, way: int = 0) -> dict[str, float]:
        """Speed split per image measured."""
        per_image = 1000 / max(1, len(self.sizes_wh))
        return {
            "reading_in_threads": self.reading * per_image,
            "waiting_for_images": self.waiting * per_image,
            "network": self.network * per_image,
            "boxes": self.boxes[way] * per_image if self.boxes else 0.0,
        }


def evaluate(
    forward: Forward,
    boxes: Sequence[Boxes],
    batches: Iterable[Batch],
    into: Pass,
    *,
    synchronize: Callable[[], object] = lambda: None,
) -> Iterator[int]:
    """RuntimeOptions every batch and put its detections `into` the pass; yields the number of images dealt with, batch by batch.

    forward: images (b, channels, height, width) to whatever `boxes` reads. boxes: ways to make detections of it, each
    timed by itself. synchronize: waits for a device that works on by itself. The first batch runs twice, the first
    time off the clock, because the first run of anything sets it up.
    """
    into.found = [{} for _ in boxes]
    into.boxes = [0.0] * len(boxes)
    with torch.inference_mode():
        begin = time.perf_counter()
        for number, batch in enumerate(batches):
            into.waiting += time.perf_counter() - begin
            into.reading += batch.seconds
            if len(batch.indices):
                if number == 0:
                    _run_batch(
                        forward, boxes, batch, Pass(found=[{} for _ in boxes], boxes=[0.0] * len(boxes)), synchronize
                    )
                _run_batch(forward, boxes, batch, into, synchronize)
            into.failures.update(batch.failures)
            yield len(batch.indices) + len(batch.failures)
            begin = time.perf_counter()


def _run_batch(
    forward: Forward, boxes: Sequence[Boxes], batch: Batch, into: Pass, synchronize: Callable[[], object]
) -> None:
    start = time.perf_counter()
    outputs = forward(batch.images)
    synchronize()
    into.network += time.perf_counter() - start
    for way, make in enumerate(boxes):
        start = time.perf_counter()
        into.found[way].update(zip(batch.indices, make(outputs, batch.letterboxes), strict=True))
        into.boxes[way] += time.perf_counter() - start
    into.sizes_wh.update((index, fit.image_wh) for index, fit in zip(batch.indices, batch.letterboxes, strict=True))


@dataclass(kw_only=True)
class ClassPass:
    """What a pass has found so far: probabilities (classes,) of each image, by its place in the list; why images could not
    be read; seconds in the network. interrupted: set by whoever ended the pass early."""

    found: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    network: float = 0.0
    interrupted: bool = False

    @property
    def order(self) -> list[int]:
        """Places in the list of the images classified, in order."""
        return sorted(self.found)

    def probabilities(self, classes: int) -> NDArray[np.floating[Any]]:
        """(n, classes), in `order`."""
        return np.array([self.found[index] for index in self.order], np.float32).reshape(-1, classes)


def classify(probabilities: Callable[[Tensor], Tensor], batches: Iterable[Batch], into: ClassPass) -> Iterator[int]:
    """RuntimeOptions every batch; yields the number of images dealt with. probabilities: images to (b, classes) on the CPU."""
    with torch.inference_mode():
        for batch in batches:
            if len(batch.indices):
                start = time.perf_counter()
                rows = probabilities(batch.images).numpy()
                into.network += time.perf_counter() - start
                into.found.update(zip(batch.indices, rows, strict=True))
            into.failures.update(batch.failures)
            yield len(batch.indices) + len(batch.failures)


def make_predictor(settings: EvaluationOptions, size: Sequence[int]) -> Predictor:
    """The network at an input size: nothing (the cfg's), a side, or width and height. Raises InputError if it has no boxes."""
    return open_predictor(settings.weights, _run(settings, size)).predictor


def make_model(settings: EvaluationOptions, size: Sequence[int]) -> Predictor | Classifier:
    """The same for a network with boxes or a classifier."""
    return open_model(settings.weights, _run(settings, size)).model


def _run(settings: EvaluationOptions, size: Sequence[int]) -> RuntimeOptions:
    device = select_device(settings.device)
    width, height = (size[0], size[-1]) if size else (None, None)
    if settings.weights is None:
        logger.warning("no --weights: the network is random")
    if settings.half and device.type == "cpu":
        raise InputError("--half: 16-bit floats are for a GPU, this run is on the cpu")
    reading = LoadOptions(
        cfg=settings.cfg,
        device=device,
        width=width,
        height=height,
        ema=settings.ema,
        trust_pickle=settings.trust_pickle,
    )
    return RuntimeOptions(
        backend=settings.backend,
        reading=reading,
        half=settings.half,
        mirrored=settings.augment,
        single=settings.single_cls,
    )


def run_pass(
    settings: EvaluationOptions, predictor: Predictor, images: Sequence[Path], confidences: Sequence[float]
) -> Pass:
    """Everything found in the images, once for each confidence; Ctrl-C ends it early."""
    found = Pass()
    boxes = [predictor.boxes(_selection(settings, conf)) for conf in confidences]
    loader = _loader(settings, predictor, images)
    steps = evaluate(predictor.forward, boxes, loader, found, synchronize=predictor.wait)
    try:
        with tqdm(total=len(images), unit="img", desc=by(predictor.size_wh)) as bar:
            for count in steps:
                bar.update(count)
    except KeyboardInterrupt:
        found.interrupted = True
    return found


def outcome(images: Sequence[Path], found: Pass | ClassPass) -> int:
    """The exit code of a run. Raises KeyboardInterrupt if it was ended early, RunError if images could not be read."""
    if found.interrupted:
        print(f"{len(found.order)} of {len(images)} images were measured", file=sys.stderr)
        raise KeyboardInterrupt
    if found.failures:
        first = found.failures[min(found.failures)]
        raise RunError(
            f"{len(found.failures)} of {len(images)} images could not be read, the results are those of the others; "
            f"the first: {first}"
        )
    return EXIT_OK


def speed_text(milliseconds: dict[str, float]) -> str:
    return ", ".join(f"{what.replace('_', ' ')} {value:.1f} ms" for what, value in milliseconds.items())


def by(size_wh: Sequence[int]) -> str:
    return f"{size_wh[0]}x{size_wh[1]}"


def _selection(settings: EvaluationOptions, conf: float) -> Selection:
    return Selection(conf=conf, iou=settings.iou_thres, agnostic=settings.single_cls, list_above=SCORE_THRESH)


def _loader(settings: EvaluationOptions, predictor: Predictor, images: Sequence[Path]) -> ImageLoader:
    plan = predictor.network.plan
    return ImageLoader(
        images,
        predictor.size_wh,
        letter_box=plan.net.letter_box if settings.letter_box is None else bool(settings.letter_box),
        channels=plan.input.channels,
        batch_size=settings.batch_size,
        workers=settings.workers,
        kernel=settings.resize,
    )

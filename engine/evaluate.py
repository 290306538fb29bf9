"""One pass over a data set: pictures in, detections out, with a stopwatch at every station."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from utils.detections import Detections
from utils.geometry import Fit


class Batch(Protocol):
    """What the pass needs of a batch; data/picture_loader.py makes it."""

    @property
    def images(self) -> Tensor: ...
    @property
    def fits(self) -> Sequence[Fit]: ...
    @property
    def indices(self) -> Sequence[int]: ...
    @property
    def failures(self) -> Sequence[tuple[int, str]]: ...
    @property
    def seconds(self) -> float: ...


Forward = Callable[[Tensor], Any]
Boxes = Callable[[Any, Sequence[Fit]], list[Detections]]


@dataclass(kw_only=True)
class Pass:
    """What a pass has found so far; complete or not, it can be measured.

    found: for each way of making boxes the detections of each picture, by the picture's place in the list.
    sizes_wh: pixels of each picture. failures: why a picture could not be read. Seconds add up over the pass:
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
        """Places in the list of the pictures measured, in order."""
        return sorted(self.sizes_wh)

    def detections(self, way: int) -> list[Detections]:
        """Detections of every picture measured, in `order`."""
        return [self.found[way][index] for index in self.order]

    def milliseconds(self, way: int = 0) -> dict[str, float]:
        """Speed split per picture measured."""
        per_picture = 1000 / max(1, len(self.sizes_wh))
        return {
            "reading_in_threads": self.reading * per_picture,
            "waiting_for_pictures": self.waiting * per_picture,
            "network": self.network * per_picture,
            "boxes": self.boxes[way] * per_picture if self.boxes else 0.0,
        }


def evaluate(
    forward: Forward,
    boxes: Sequence[Boxes],
    batches: Iterable[Batch],
    into: Pass,
    *,
    synchronize: Callable[[], object] = lambda: None,
) -> Iterator[int]:
    """Run every batch and put its detections `into` the pass; yields the number of pictures dealt with, batch by batch.

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
                    _run(forward, boxes, batch, Pass(found=[{} for _ in boxes], boxes=[0.0] * len(boxes)), synchronize)
                _run(forward, boxes, batch, into, synchronize)
            into.failures.update(batch.failures)
            yield len(batch.indices) + len(batch.failures)
            begin = time.perf_counter()


def _run(forward: Forward, boxes: Sequence[Boxes], batch: Batch, into: Pass, synchronize: Callable[[], object]) -> None:
    start = time.perf_counter()
    outputs = forward(batch.images)
    synchronize()
    into.network += time.perf_counter() - start
    for way, make in enumerate(boxes):
        start = time.perf_counter()
        into.found[way].update(zip(batch.indices, make(outputs, batch.fits), strict=True))
        into.boxes[way] += time.perf_counter() - start
    into.sizes_wh.update((index, fit.picture_wh) for index, fit in zip(batch.indices, batch.fits, strict=True))

"""Detection in uploaded files, frame by frame."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import anyio
import numpy as np
import torch
from numpy.typing import NDArray

from data.image import jpeg
from inference.predictor import Model, NmsOptions
from inference.results import best_classes
from serving.batching import NetworkThread
from serving.decoder import DecodedFrame, Decoders, End
from utils.detections import Detections
from utils.letterbox import Letterbox

T = TypeVar("T")

MAX_DET = 1000
_JPEG_QUALITY = 85
_LEAST_READERS, _MOST_READERS = 4, 8


@dataclass(frozen=True, kw_only=True)
class DetectionRequest:
    """A client's request. images: also return each frame as a JPEG, for display."""

    conf: float
    iou: float
    images: bool


class DetectionService:
    """Context manager that detects objects in uploads or classifies them.

    Processes decode, threads preprocess, one thread runs the network; all are stopped at the end of the block.
    most_frames: maximum number of frames read from a video.
    batch_size: maximum number of images in a batch.
    Raises RunError if the processes cannot be started.
    """

    def __init__(self, model: Model, *, most_frames: int, batch_size: int = 8) -> None:
        self.model, self.most_frames = model, most_frames
        self._preprocess = model.preprocessing()
        readers = min(max(os.cpu_count() or 1, _LEAST_READERS), _MOST_READERS)
        self.decoders = Decoders(readers)
        self.network = NetworkThread(model, batch_size)
        # Limit each reader to one PyTorch thread; the default would be one per core for each of them.
        self._readers = ThreadPoolExecutor(readers, "reader", torch.set_num_threads, (1,))

    def __enter__(self) -> DetectionService:
        return self

    def __exit__(self, *_: object) -> None:
        self.decoders.close()
        self._readers.shutdown(cancel_futures=True)
        self.network.close()

    async def frames(self, path: Path, request: DetectionRequest) -> AsyncGenerator[dict[str, Any], None]:
        """Yield plain data for each frame of an image or video file, finally {"complete": whether all were read}.

        Raises InputError for an unusable file, possibly in the middle of a video.
        """
        options = NmsOptions(conf=request.conf, iou=request.iou, max_det=MAX_DET)
        reading = self.decoders.read(path, self.most_frames)
        in_video = False
        try:
            while isinstance(fitted := await self._in_reader(partial(self._next, reading, request.images)), _Fitted):
                in_video = "time_s" in fitted.facts
                found = await asyncio.wrap_future(self.network.submit(fitted.pixels, fitted.letterbox, options))
                if isinstance(found, Detections):
                    yield fitted.facts | {"detections": plain(found, self.model.names)}
                else:
                    yield fitted.facts | {"classes": plain_classes(found, self.model.names)}
                if not in_video:
                    yield {"complete": True}
                    return
            in_video = False
            yield {"complete": fitted.complete}
        finally:
            if in_video:
                await self._in_reader(reading.close)

    def _next(self, reading: Generator[DecodedFrame | End, None, None], images: bool) -> _Fitted | End:
        frame = next(reading)
        if isinstance(frame, End):
            return frame
        height, width, _ = frame.image.shape
        facts: dict[str, Any] = {"width": width, "height": height, "index": frame.index}
        if frame.time_s is not None:
            facts["time_s"] = round(frame.time_s, 4)
        if images:
            facts["jpeg"] = base64.b64encode(jpeg(frame.image, _JPEG_QUALITY)).decode("ascii")
        return _Fitted(facts, *self._preprocess(frame.image))

    async def _in_reader(self, function: Callable[[], T]) -> T:
        """Run the function in a reader thread, to its end even if the request is cancelled, as generators require."""
        with anyio.CancelScope(shield=True):
            result = await asyncio.get_running_loop().run_in_executor(self._readers, function)
        return result  # noqa: RET504, mypy assumes that the scope may swallow errors


class _Fitted(NamedTuple):
    """A frame as network input, and its properties for the response."""

    facts: dict[str, Any]
    pixels: NDArray[np.float32]
    letterbox: Letterbox


def plain(found: Detections, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return detections as a JSON list; boxes are left, top, right, bottom in pixels of the image."""
    return [
        {
            "xyxy": [round(float(value), 2) for value in box],
            "score": round(score, 5),
            "class_id": class_id,
            "name": names[class_id],
        }
        for box, score, class_id in found
    ]


def plain_classes(probabilities: NDArray[np.float32], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the most probable classes as a JSON list, best first. probabilities: (classes,)."""
    best = best_classes(probabilities)
    return [{"score": round(float(probabilities[each]), 5), "class_id": each, "name": names[each]} for each in best]

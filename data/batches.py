"""Batches for inference: images from a list of files or a source of frames, converted to the network's input."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from data.frames import Failure, Frame
from data.image import read_image
from data.prefetch import map_ahead
from utils.errors import InputError
from utils.letterbox import Letterbox, Preprocessing

T = TypeVar("T")

_BATCHES_AHEAD = 2


@dataclass(frozen=True, kw_only=True)
class Batch(Generic[T]):
    """A batch of network inputs.

    images: float32 (b, channels, height, width) in [0, 1]; b may be 0.
    items: (b,), the frame of each image, or its index in a list of files.
    letterboxes: (b,), position of each image in the input.
    failures: images that could not be read, which are not among `images`.
    seconds: time spent reading (from a list of files) and preprocessing, summed over the threads.
    """

    images: torch.Tensor
    items: tuple[T, ...]
    letterboxes: tuple[Letterbox, ...]
    failures: tuple[Failure, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class _Fitted(Generic[T]):
    item: T
    pixels: NDArray[np.float32]
    letterbox: Letterbox
    seconds: float


def _batch(fitted: Sequence[_Fitted[T]], failures: Sequence[Failure]) -> Batch[T]:
    """Return a batch whose `seconds` counts the images only."""
    pixels = [each.pixels for each in fitted]
    joined = pixels[0][None] if len(pixels) == 1 else np.stack(pixels) if pixels else np.zeros((0, 0, 0, 0), np.float32)
    return Batch(
        images=torch.from_numpy(joined),
        items=tuple(each.item for each in fitted),
        letterboxes=tuple(each.letterbox for each in fitted),
        failures=tuple(failures),
        seconds=sum(each.seconds for each in fitted),
    )


def batches_of(
    frames: Iterable[Frame | Failure], preprocess: Preprocessing, batch_size: int = 1, *, ahead: int = 0
) -> Generator[Batch[Frame], None, None]:
    """Yield batches of up to `batch_size` frames, in order. A Failure is part of the batch being filled when it occurs.

    ahead: number of frames that threads prepare in advance; 0: each frame is prepared on demand.
    """

    def fit(frame: Frame | Failure) -> _Fitted[Frame] | Failure:
        if isinstance(frame, Failure):
            return frame
        start = time.perf_counter()
        return _Fitted(frame, *preprocess(frame.image), time.perf_counter() - start)

    with closing(map_ahead(fit, frames, ahead)) as found:
        yield from _grouped(found, batch_size)


def batches_of_files(
    images: Sequence[Path], preprocess: Preprocessing, *, batch_size: int = 16, workers: int = 2
) -> Generator[Batch[int], None, None]:
    """Yield batches of image files, by their index. Threads read ahead; decoding and resizing release the GIL.

    workers: number of threads, at least 1.
    """

    def read(index: int) -> _Fitted[int] | Failure:
        start = time.perf_counter()
        try:
            image = read_image(images[index])
        except InputError as error:
            return Failure(path=str(images[index]), reason=str(error))
        return _Fitted(index, *preprocess(image), time.perf_counter() - start)

    ahead = batch_size * (1 + _BATCHES_AHEAD)
    with closing(map_ahead(read, range(len(images)), ahead, max(1, workers))) as found:
        yield from _grouped(found, batch_size)


def _grouped(found: Iterable[_Fitted[T] | Failure], batch_size: int) -> Iterator[Batch[T]]:
    fitted: list[_Fitted[T]] = []
    failures: list[Failure] = []
    for each in found:
        if isinstance(each, Failure):
            failures.append(each)
            continue
        fitted.append(each)
        if len(fitted) == batch_size:
            yield _batch(fitted, failures)
            fitted, failures = [], []
    if fitted or failures:
        yield _batch(fitted, failures)

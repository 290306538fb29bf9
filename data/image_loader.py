"""Images for measuring: every image of a list once, in order, fitted to the network's input, without augmentation."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data.image import read_image
from utils.errors import InputError
from utils.letterbox import Letterbox, centre_of, network_input

_BATCHES_AHEAD = 2


@dataclass(frozen=True, kw_only=True)
class ImageBatch:
    """images: float32 (b, channels, height, width), RGB in [0, 1]. fits, indices: (b,), how each image lies in the
    input, and its place in the list. failures: place and reason of images that could not be read, which are not
    among the images (b may be 0). seconds: time that reading took, added up over the threads.
    """

    images: torch.Tensor
    fits: tuple[Letterbox, ...]
    indices: tuple[int, ...]
    failures: tuple[tuple[int, str], ...]
    seconds: float


@dataclass(frozen=True)
class _Read:
    index: int
    fit: Letterbox | None
    pixels: NDArray[np.float32] | None
    failure: str
    seconds: float


class ImageLoader:
    """Iterable over ImageBatch. Threads read ahead; decoding and resizing leave Python's lock to others.

    network_wh: the network's input in pixels. workers: threads, at least 1. kernel: see utils/letterbox.py. centred: only the
    middle of each image, as classifiers see it.
    """

    def __init__(
        self,
        images: Sequence[Path],
        network_wh: tuple[int, int],
        *,
        letter_box: bool = False,
        channels: int = 3,
        batch_size: int = 16,
        workers: int = 2,
        kernel: str = "darknet",
        centred: bool = False,
    ) -> None:
        self.images, self.network_wh, self.letter_box = images, network_wh, letter_box
        self.channels, self.batch_size, self.workers, self.kernel = channels, batch_size, max(1, workers), kernel
        self.centred = centred

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[ImageBatch]:
        waiting: deque[Future[_Read]] = deque()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="images")
        try:
            unread = iter(range(len(self.images)))
            for first in range(0, len(self.images), self.batch_size):
                ahead = self.batch_size * (1 + _BATCHES_AHEAD)
                chosen = islice(unread, ahead - len(waiting))
                waiting.extend(pool.submit(self._read, index) for index in chosen)
                size = min(self.batch_size, len(self.images) - first)
                yield self._batch([waiting.popleft().result() for _ in range(size)])
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, index: int) -> _Read:
        start = time.perf_counter()
        try:
            image = read_image(self.images[index], self.channels)
        except InputError as error:
            return _Read(index, None, None, str(error), time.perf_counter() - start)
        height, width = image.shape[:2]
        fit = Letterbox(image_wh=(width, height), network_wh=self.network_wh, letter_box=self.letter_box)
        wh, kernel = self.network_wh, self.kernel
        pixels = centre_of(image, wh, kernel) if self.centred else network_input(image, fit, kernel)
        return _Read(index, fit, pixels, "", time.perf_counter() - start)

    def _batch(self, read: list[_Read]) -> ImageBatch:
        width, height = self.network_wh
        pixels = [torch.from_numpy(each.pixels) for each in read if each.pixels is not None]
        empty = torch.zeros(0, self.channels, height, width)
        return ImageBatch(
            images=torch.stack(pixels) if pixels else empty,
            fits=tuple(each.fit for each in read if each.fit is not None),
            indices=tuple(each.index for each in read if each.fit is not None),
            failures=tuple((each.index, each.failure) for each in read if each.failure),
            seconds=sum(each.seconds for each in read),
        )

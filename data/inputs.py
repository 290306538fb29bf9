"""Frames made ready for a network: fitted to its input, in a thread ahead of it."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.frames import Failure, Frame
from utils.geometry import Fit
from utils.resize import gray, network_input


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A frame, how it lies in the network's input, and that input: float32 (channels, height, width) in [0, 1].

    seconds: what fitting it took.
    """

    frame: Frame
    fit: Fit
    pixels: NDArray[np.float32]
    seconds: float


def prepare(
    frames: Iterable[Frame | Failure], network_wh: tuple[int, int], *, channels: int, letter_box: bool, kernel: str
) -> Generator[Prepared | Failure, None, None]:
    """Each frame fitted to an input of `network_wh` pixels and 3 (RGB) or 1 (grey) channels; failures pass through.

    letter_box: keep the aspect ratio. kernel: see utils.resize.network_input.
    """
    for item in frames:
        if isinstance(item, Failure):
            yield item
            continue
        start = time.perf_counter()
        picture = gray(item.picture) if channels == 1 else item.picture
        fit = Fit(picture_wh=(picture.shape[1], picture.shape[0]), network_wh=network_wh, letter_box=letter_box)
        pixels = network_input(picture, fit, kernel)
        yield Prepared(frame=item, fit=fit, pixels=pixels, seconds=time.perf_counter() - start)


def batches(items: Iterable[Prepared | Failure], size: int) -> Iterator[list[Prepared] | Failure]:
    """Groups of up to `size` prepared frames, in order; failures pass through."""
    group: list[Prepared] = []
    for item in items:
        if isinstance(item, Failure):
            yield item
            continue
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group

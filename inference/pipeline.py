"""The course of detect.py: from frames to what is found in them, recorded and told."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from data.frames import Failure, Frame, Frames
from data.prefetch import Prefetch
from inference.detector import Selection
from inference.predictor import Predictor
from inference.recorder import Recorder
from inference.results import Seen, darknet_lines, found_text
from utils.detections import Detections
from utils.letterbox import Letterbox, network_input, to_gray


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A frame, how it lies in the network's input, and that input: float32 (channels, height, width) in [0, 1].

    seconds: what fitting it took.
    """

    frame: Frame
    fit: Letterbox
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
        image = to_gray(item.image) if channels == 1 else item.image
        fit = Letterbox(image_wh=(image.shape[1], image.shape[0]), network_wh=network_wh, letter_box=letter_box)
        pixels = network_input(image, fit, kernel)
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


NAMED = 10  # classes that the summary names
AHEAD = 4  # inputs that wait for the network


@dataclass(kw_only=True)
class Tally:
    """What the run has done so far. Seconds: `reading` is time spent waiting for images, fitting them goes on beside."""

    images: int = 0
    objects: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    reading: float = 0.0
    fitting: float = 0.0
    network: float = 0.0
    boxes: float = 0.0
    interrupted: bool = False


def run(
    predictor: Predictor,
    frames: Frames,
    recorder: Recorder,
    names: Sequence[str],
    letter_box: bool,
    options: argparse.Namespace,
) -> Tally:
    """Everything from the first image to the last, or to Ctrl-C."""
    tally = Tally()
    channels = predictor.network.plan.input.channels
    prepared = prepare(frames, predictor.size_wh, channels=channels, letter_box=letter_box, kernel=options.resize)
    # A live source is fitted at the last moment: what is made ahead would be old when its turn comes.
    ready = prepared if frames.live else Prefetch(prepared, AHEAD)
    bar = tqdm(total=frames.total, unit="frame", dynamic_ncols=True, disable=None)
    selection = Selection(
        conf=options.conf_thres,
        iou=options.iou_thres,
        agnostic=options.agnostic_nms,
        max_det=options.max_det,
        classes=tuple(options.classes) if options.classes else None,
    )
    try:
        with closing(ready), bar, torch.inference_mode():
            waiting = time.perf_counter()
            for group in batches(ready, options.batch_size):
                tally.reading += time.perf_counter() - waiting
                if isinstance(group, Failure):
                    tally.failures.append(group.reason)
                    bar.write(f"skipped: {group.reason}", file=sys.stderr)
                else:
                    for item, found, seconds in detect(predictor, group, selection, tally):
                        recorder.add(seen(item, found, live=frames.live))
                        report(bar, item, found, seconds, names, options.print)
                waiting = time.perf_counter()
    except KeyboardInterrupt:
        tally.interrupted = True
    return tally


def detect(
    predictor: Predictor, group: list[Prepared], selection: Selection, tally: Tally
) -> list[tuple[Prepared, Detections, float]]:
    """Detections of a batch, with the seconds that one image took in the network."""
    start = time.perf_counter()
    single = group[0].pixels[None]  # no copy
    images = torch.from_numpy(single if len(group) == 1 else np.stack([item.pixels for item in group]))
    outputs = predictor.forward(images)
    predictor.wait()
    middle = time.perf_counter()
    found = predictor.boxes(selection)(outputs, [item.fit for item in group])
    tally.network += middle - start
    tally.boxes += time.perf_counter() - middle
    tally.fitting += sum(item.seconds for item in group)
    tally.images += len(group)
    for each in found:
        tally.objects.update(each.class_ids.tolist())
    return [(item, each, (middle - start) / len(group)) for item, each in zip(group, found, strict=True)]


def seen(item: Prepared, found: Detections, *, live: bool) -> Seen:
    frame = item.frame
    if frame.video is None:
        return Seen(path=frame.path, image=frame.image, found=found)
    return Seen(
        path=frame.path,
        image=frame.image,
        found=found,
        index=frame.index,
        time_s=frame.time_s,
        fps=frame.video.fps,
        live=live,
    )


def report(bar: tqdm, item: Prepared, found: Detections, seconds: float, names: Sequence[str], style: str) -> None:
    """One line for an image; video frames only move the bar, unless the original's lines are asked for."""
    frame = item.frame
    if style == "darknet":
        bar.write(f"{frame.path}: Predicted in {seconds * 1e3:f} milli-seconds.")
        for line in darknet_lines(found, names):
            bar.write(line)
    elif frame.video is None:
        width, height = item.fit.image_wh
        bar.write(f"{frame.path}: {width}x{height} {found_text(found.class_ids, names)}, {seconds * 1e3:.1f} ms")
    bar.update()


def summary(tally: Tally, names: Sequence[str], writing: float, seconds: float) -> str:
    """Counts, and where the time of one image went (stations run beside each other)."""
    many = [number for number, count in tally.objects.most_common() for _ in range(count)]
    head = f"{tally.images} image{'s' if tally.images != 1 else ''}: {found_text(np.array(many, int), names, NAMED)}"
    if tally.failures:
        head += f"; {len(tally.failures)} could not be read"
    if tally.interrupted:
        head += "; interrupted"
    share = 1e3 / max(tally.images, 1)
    stations = {
        "waiting for images": tally.reading,
        "fitting": tally.fitting,
        "network": tally.network,
        "boxes": tally.boxes,
        "drawing and writing": writing,
    }
    split = ", ".join(f"{name} {value * share:.1f}" for name, value in stations.items())
    rate = tally.images / seconds if seconds else 0.0
    return f"{head}\n{seconds:.2f} s, {rate:.1f} images/s; ms for each: {split}"

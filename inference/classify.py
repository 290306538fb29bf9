"""detect.py for a classifier: which classes an image most probably shows (classifier.c predict_classifier)."""

from __future__ import annotations

import argparse
import csv
import io
import sys
import time
from collections.abc import Sequence
from contextlib import closing

import torch
from numpy.typing import NDArray
from tqdm import tqdm

from data.frames import Failure, Frame, Frames, open_frames
from inference.classifier import Classifier
from utils.cli import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from utils.files import run_folder, write_text
from utils.letterbox import centre_crop, to_gray

TOP = 5  # classes told of each image

Named = tuple[str, float]


def name_images(classifier: Classifier, names: Sequence[str], options: argparse.Namespace) -> int:
    """A line for each image with its most probable classes, and all of them in results.csv; the exit code."""
    rows: list[tuple[Frame, list[Named]]] = []
    failures = 0
    with closing(open_frames(options.source, vid_stride=options.vid_stride)) as frames:
        folder = run_folder(options.project, options.name, exist_ok=options.exist_ok)
        try:
            failures = _name_all(classifier, names, frames, rows, options)
            interrupted = False
        except KeyboardInterrupt:
            interrupted = True
    write_text(folder / "results.csv", _csv(rows))
    print(f"{len(rows)} images named" + (f"; {failures} could not be read" if failures else ""))
    print(f"Results saved to {folder}")
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if failures else EXIT_OK


def _name_all(
    classifier: Classifier,
    names: Sequence[str],
    frames: Frames,
    rows: list[tuple[Frame, list[Named]]],
    options: argparse.Namespace,
) -> int:
    """Name every frame into `rows`; the number of those that could not be read."""
    failures = 0
    with tqdm(total=frames.total, unit="frame", dynamic_ncols=True, disable=None) as bar, torch.inference_mode():
        for item in frames:
            bar.update()
            if isinstance(item, Failure):
                failures += 1
                bar.write(f"skipped: {item.reason}", file=sys.stderr)
                continue
            start = time.perf_counter()
            best = _best(classifier, names, item.image, options.resize)
            for line in _lines(item, best, 1e3 * (time.perf_counter() - start), options.print):
                bar.write(line)
            rows.append((item, best))
    return failures


def _best(classifier: Classifier, names: Sequence[str], image: NDArray, kernel: str) -> list[Named]:
    """The TOP most probable classes, best first; of equal ones the first class."""
    seen = to_gray(image) if classifier.network.plan.input.channels == 1 else image
    pixels = torch.from_numpy(centre_crop(seen, classifier.size_wh, kernel))[None]
    values, order = classifier.probabilities(pixels)[0].sort(descending=True, stable=True)
    return [(names[place], value) for place, value in zip(order[:TOP].tolist(), values[:TOP].tolist(), strict=True)]


def _lines(frame: Frame, best: Sequence[Named], milliseconds: float, style: str) -> list[str]:
    place = frame.path if frame.video is None else f"{frame.path} frame {frame.index}"
    if style == "darknet":
        return [f"{place}: Predicted in {milliseconds:f} milli-seconds.", *(f"{name}: {p:f}" for name, p in best)]
    return [f"{place}: {', '.join(f'{name} {p:.3f}' for name, p in best)}, {milliseconds:.1f} ms"]


def _csv(rows: Sequence[tuple[Frame, Sequence[Named]]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "frame", "rank", "class", "probability"))
    for frame, best in rows:
        for rank, (name, probability) in enumerate(best, start=1):
            writer.writerow((frame.path, frame.index, rank, name, f"{probability:.6f}"))
    return text.getvalue()

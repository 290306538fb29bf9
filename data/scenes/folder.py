"""A data set of drawn scenes on disk."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np

from data.annotations import Annotation
from data.formats import darknet
from data.image import save_image
from data.scenes.painting import paint_scene
from data.scenes.parts import NAMES
from utils.errors import InputError, RunError
from utils.files import staged

logger = logging.getLogger(__name__)

VERSION = 2
"""To be increased whenever the same seed would give different images."""
_DATA_FILE = "scenes.data"


def make_scenes(folder: str | Path, count: int, seed: int = 0, size: int = 416) -> Path:
    """Return the `.data` file of a data set of drawn scenes in `folder`, creating the data set if it does not exist.

    count: number of images in split train; val gets a fifth as many others.
    seed: each image depends only on seed, size and its number.
    size: side of the square images in pixels.

    Images are JPEG files with Darknet labels next to them. The folder appears under its name when it is complete.
    Raises InputError if it contains anything but the requested data set, RunError if it cannot be written.
    """
    if count < 1 or size < 32:
        raise InputError(f"cannot draw {count} scenes of {size} pixels, expected at least 1 of at least 32")
    folder = Path(folder)
    options = {
        "classes": str(len(NAMES)),
        "train": "scenes-train.txt",
        "valid": "scenes-val.txt",
        "names": "scenes.names",
        "drawn": f"version {VERSION} count {count} seed {seed} size {size}",
    }
    if not folder.exists():
        validation = max(1, count // 5)
        try:
            with staged(folder) as unfinished, ThreadPoolExecutor(os.cpu_count()) as pool:
                for split, numbers in (("train", range(count)), ("val", range(count, count + validation))):
                    (unfinished / split).mkdir(parents=True)
                    names = [f"./{split}/{number:06d}.jpg" for number in numbers]
                    list(pool.map(_draw, (unfinished / name for name in names), repeat(seed), numbers, repeat(size)))
                    (unfinished / f"scenes-{split}.txt").write_text(darknet.format_list(names))
                (unfinished / options["names"]).write_text(darknet.format_list(NAMES))
                (unfinished / _DATA_FILE).write_text(darknet.format_data(options))
            logger.info("%s: %d generated scenes with %d classes", folder, count + validation, len(NAMES))
        except RunError:
            if not folder.exists():  # otherwise another process was faster
                raise
    path = folder / _DATA_FILE
    found = darknet.read_data(path).get("drawn") if path.is_file() else None
    if found != options["drawn"]:
        raise InputError(f"{folder}: holds {found or 'something else'}, expected {options['drawn']} or no such folder")
    return path


def _draw(path: Path, seed: int, number: int, size: int) -> None:
    scene = paint_scene(np.random.default_rng((seed, number)), (size, size))
    save_image(path, scene.image)
    labels = Annotation.of(path, scene.cxcywh_rel, scene.class_ids)
    path.with_suffix(".txt").write_text(darknet.format_labels(labels))

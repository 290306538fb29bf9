"""A data set of drawn scenes on disk."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from data.annotations import Annotation
from data.formats import darknet
from data.scenes.painter import paint_scene
from data.scenes.shapes import NAMES
from utils.errors import InputError, RunError
from utils.files import read_text

logger = logging.getLogger(__name__)

VERSION = 1
"""Raised whenever the same seed would give other images."""
_DATA_FILE, _NAMES_FILE = "scenes.data", "scenes.names"
_JPEG_QUALITY = 92


def make_scenes(folder: str | Path, count: int, seed: int = 0, size: int = 416) -> Path:
    """Path of the `.data` file of a data set of drawn scenes in `folder`, which is made if it is not there yet.

    count: images in split train; a fifth as many, other ones, are in val. size: side of the square images in
    pixels. Images are JPEG with Darknet labels beside them, and depend on seed, size and their number alone.
    The folder appears under its name when it is complete. Raises InputError if it holds anything else than the
    data set asked for, RunError if it cannot be written.
    """
    if count < 1 or size < 32:
        raise InputError(f"cannot draw {count} scenes of {size} pixels, expected at least 1 of at least 32")
    folder = Path(folder)
    options = _options(count, seed, size)
    if folder.exists():
        return _existing(folder, options)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise RunError(f"{folder}: cannot be created: {error.strerror}") from error
    try:
        _fill(unfinished, options, count, seed, size)
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    except OSError as error:
        if folder.exists():  # somebody else was faster
            return _existing(folder, options)
        raise RunError(f"{folder}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    logger.info("%s: %d drawn scenes with %d classes", folder, count + _validation_count(count), len(NAMES))
    return folder / _DATA_FILE


def _validation_count(count: int) -> int:
    return max(1, count // 5)


def _options(count: int, seed: int, size: int) -> dict[str, str]:
    return {
        "classes": str(len(NAMES)),
        "train": "scenes-train.txt",
        "valid": "scenes-val.txt",
        "names": _NAMES_FILE,
        "drawn": f"version {VERSION} count {count} seed {seed} size {size}",
    }


def _existing(folder: Path, options: dict[str, str]) -> Path:
    path = folder / _DATA_FILE
    found = darknet.parse_data(read_text(path, "data"), str(path)).get("drawn") if path.is_file() else None
    if found != options["drawn"]:
        raise InputError(f"{folder}: holds {found or 'something else'}, expected {options['drawn']} or no such folder")
    return path


def _fill(folder: Path, options: dict[str, str], count: int, seed: int, size: int) -> None:
    numbers = {"train": range(count), "val": range(count, count + _validation_count(count))}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for split, key in (("train", "train"), ("val", "valid")):
            (folder / split).mkdir()
            names = [f"./{split}/{number:06d}.jpg" for number in numbers[split]]
            jobs = [
                pool.submit(_draw, folder / name, seed, n, size) for name, n in zip(names, numbers[split], strict=True)
            ]
            for job in jobs:
                job.result()
            (folder / options[key]).write_text("".join(f"{name}\n" for name in names))
    (folder / _NAMES_FILE).write_text(darknet.format_names(NAMES))
    (folder / _DATA_FILE).write_text(darknet.format_data(options))


def _draw(path: Path, seed: int, number: int, size: int) -> None:
    scene = paint_scene(np.random.default_rng((seed, number)), (size, size))
    bgr = cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR)
    path.write_bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes())
    labels = Annotation.of(path, scene.cxcywh_rel, scene.class_ids)
    path.with_suffix(".txt").write_text(darknet.format_labels(labels))

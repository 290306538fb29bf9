"""Data sets for classifiers: ImageNet's class folders, and CIFAR-10's batches, which are unpacked into such folders."""

from __future__ import annotations

import io
import logging
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.image import IMAGE_SUFFIXES, save_image
from utils.errors import InputError, RunError
from utils.files import is_folder, publish, read_text

logger = logging.getLogger(__name__)

SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_NO_CLASSES = {"images", "labels", "annotations", "jpegimages", "masks"}  # of detection data sets
UNPACKED = "images"
_CIFAR_BATCH = re.compile(r"(data_batch_[1-5]|test_batch)(\.bin)?")
# Raised by the unpickler and NumPy for an inconsistent pickle.
_DAMAGE = (EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, SystemError, MemoryError,
           RecursionError, ImportError)  # fmt: skip
_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_CIFAR_CLASSES = 10


class ClassFolders(NamedTuple):
    """A data set of class folders.

    names: class names, sorted.
    labels: text that identifies each class in image paths.
    splits: images of each split.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    splits: dict[str, tuple[Path, ...]]


def split_folders(folder: Path) -> dict[str, Path]:
    """Return the folder of each split if `folder` has ImageNet's layout (split/class/image), else an empty dict."""
    found = {split: folder / name for name, split in reversed(SPLIT_FOLDERS.items()) if _classes_in(folder / name)}
    return {split: found[split] for split in dict.fromkeys(SPLIT_FOLDERS.values()) if split in found}


def _classes_in(folder: Path) -> list[Path]:
    """Return the class folders in the folder of a split; none if it belongs to a detection data set."""
    inner = sorted(path for path in folder.iterdir() if path.is_dir()) if is_folder(folder) else []
    with_boxes = any(path.name.lower() in _NO_CLASSES or any(path.glob("*.txt")) for path in inner)
    return [] if with_boxes else inner


def read_class_folders(folder: Path) -> ClassFolders:
    """Read a folder in ImageNet's layout.

    Raises InputError if the splits have different classes or the paths do not identify the classes.
    """
    folders = split_folders(folder)
    classes = {split: tuple(each.name for each in _classes_in(path)) for split, path in folders.items()}
    first, names = next(iter(classes.items()))
    for split, found in classes.items():
        if different := sorted(set(found) - set(names)):
            raise InputError(f"{folders[split]}: class {different[0]!r} is not in {folders[first]}")
    above = {*folder.parts, *(path.name for path in folders.values())}
    if shared := sorted(above.intersection(names)):
        raise InputError(
            f"{folder}: class {shared[0]!r} is also the name of a folder above the classes, so the paths do not tell the "
            "class; rename one of them"
        )
    splits = {}
    for split, path in folders.items():
        images = (image for each in _classes_in(path) for image in sorted(each.iterdir()))
        splits[split] = tuple(image for image in images if image.suffix.lower() in IMAGE_SUFFIXES)
        if not splits[split]:
            raise InputError(f"{path}: no images, expected files such as {path}/{names[0]}/1.jpg")
    return ClassFolders(names, tuple(f"{os.sep}{name}{os.sep}" for name in names), splits)


def is_cifar(folder: Path) -> bool:
    """Return whether a folder contains CIFAR-10 batches in the Python or binary version."""
    return any(_batches(folder, "train")) or any(_batches(folder, "test"))


def unpack_cifar(folder: Path) -> Path:
    """Unpack CIFAR-10's images once, as PNG files in class folders inside `folder`, and return their folder.

    Raises InputError for damaged batches, RunError if the images cannot be written.
    """
    target = folder / UNPACKED
    if target.is_dir():
        return target
    names = _cifar_names(folder)
    try:
        part = Path(tempfile.mkdtemp(prefix=f"{UNPACKED}.", dir=folder))
        try:
            for split in ("train", "test"):
                for path in _batches(folder, split):
                    _write_batch(path, part / split, names)
            if not target.is_dir():  # otherwise another process was faster
                publish(part, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise RunError(f"{folder}: its images cannot be unpacked: {error.strerror}") from error
    logger.info("%s: unpacked into %s", folder, target)
    return target


def _batches(folder: Path, split: str) -> Iterator[Path]:
    wanted = "test_batch" if split == "test" else "data_batch"
    for path in sorted(folder.iterdir()):
        if _CIFAR_BATCH.fullmatch(path.name) and path.name.startswith(wanted):
            yield path


def _write_batch(path: Path, folder: Path, names: tuple[str, ...]) -> None:
    labels, pixels = _binary_batch(path) if path.suffix == ".bin" else _python_batch(path)
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
    images = pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    for number, (label, image) in enumerate(zip(labels.tolist(), images, strict=True)):
        save_image(folder / names[label] / f"{path.stem}_{number:05d}.png", np.ascontiguousarray(image))


def _binary_batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rows = np.fromfile(path, np.uint8)
    if len(rows) % (1 + _PIXELS):
        raise InputError(f"{path}: has {len(rows)} bytes, expected {1 + _PIXELS} for each image")
    rows = rows.reshape(-1, 1 + _PIXELS)
    if rows[:, 0].max(initial=0) >= _CIFAR_CLASSES:
        raise _bad_label(path)
    return rows[:, 0], rows[:, 1:]


def _bad_label(path: Path) -> InputError:
    return InputError(f"{path}: has an invalid label, expected whole numbers from 0 to {_CIFAR_CLASSES - 1}")


def _python_batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    content = _unpickled(path)
    labels, data = content.get("labels"), content.get("data")
    if not isinstance(labels, list) or not isinstance(data, _PickledArray):
        raise InputError(f"{path}: has no labels and data, expected a CIFAR-10 batch")
    if not all(type(label) is int and 0 <= label < _CIFAR_CLASSES for label in labels):
        raise _bad_label(path)
    return np.array(labels, np.uint8), data.pixels(path, len(labels))


def _cifar_names(folder: Path) -> tuple[str, ...]:
    text, binary = folder / "batches.meta.txt", folder / "batches.meta"
    if text.is_file():
        names: Any = read_text(text, "names").split()
    elif binary.is_file():
        names = _unpickled(binary).get("label_names")
    else:
        raise InputError(
            f"{folder}: has CIFAR-10 batches, but neither {text.name} nor {binary.name} with its class names"
        )
    if not isinstance(names, list) or len(names) != _CIFAR_CLASSES or not all(map(_is_name, names)):
        raise InputError(f"{folder}: expected {_CIFAR_CLASSES} class names, found {names!r:.200}")
    return tuple(names)


def _is_name(name: object) -> bool:
    return isinstance(name, str) and re.fullmatch(r"[\w-]+", name) is not None


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler of lists, dictionaries, strings, numbers and NumPy arrays that rejects everything that could run code.

    Arrays are not built by NumPy, which would crash on an array or a type with an inconsistent state.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")):
            return _PickledArray
        if (module, name) == ("numpy", "ndarray"):
            return _PickledArray
        if (module, name) == ("numpy", "dtype"):
            return _PickledType
        if (module, name) == ("_codecs", "encode"):  # bytes in pickles written by Python 3 for Python 2
            return _encoded
        raise pickle.UnpicklingError(f"{module}.{name} is not data")


class _Pickled:
    """A pickled object as plain data."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _PickledType(_Pickled):
    pass


class _PickledArray(_Pickled):
    def pixels(self, path: Path, count: int) -> NDArray[np.uint8]:
        """Return the pixels. Raises InputError unless this is an array of `count` images."""
        try:
            _, shape, kind, by_column, content = self.state
            (name, *_), shape = kind.arguments, tuple(shape)
            content = (
                content.encode("latin1") if isinstance(content, str) else content
            )  # str: Python 2 wrote the pickle
        except (TypeError, ValueError, AttributeError):
            raise InputError(f"{path}: data is damaged, expected a NumPy array") from None
        if name != "u1" or shape != (count, _PIXELS):
            raise InputError(f"{path}: data has the wrong shape or type, expected uint8 ({count}, {_PIXELS})")
        if not isinstance(content, bytes) or len(content) != count * _PIXELS:
            raise InputError(f"{path}: data is truncated or damaged, expected {count * _PIXELS} bytes")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_column else "C")


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding} is not expected")
    return text.encode("latin1")


def _unpickled(path: Path) -> dict[str, Any]:
    """Read the dictionary in a file of the Python version. Raises InputError for anything else."""
    try:
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except (pickle.UnpicklingError, *_DAMAGE) as error:
        raise InputError(f"{path}: is not a CIFAR-10 batch: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: is not a CIFAR-10 batch, expected a dictionary")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}

"""What a classifier is measured on: the pictures of one split and the class that the path of each tells."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.annotations import Dataset
from data.classification import class_in_path
from data.exam import make_exam
from utils.errors import InputError

logger = logging.getLogger(__name__)

_TOP = 5  # classifier.c train_classifier


@dataclass(frozen=True, kw_only=True)
class ClassExam:
    """images: the pictures, in list order. class_ids: (n,), -1 where a path tells none. names: of the classes.

    top: how many classes may be named for the second of the two accuracies.
    """

    images: tuple[Path, ...]
    class_ids: NDArray[np.int64]
    names: tuple[str, ...]
    top: int

    def classes_of(self, order: Sequence[int]) -> NDArray[np.int64]:
        """Classes of the pictures at these places."""
        return self.class_ids[np.asarray(order, np.int64)]


def make_class_exam(dataset: Dataset, split: str, classes: int, cfg: str) -> ClassExam:
    """The exam of a split for a network of `classes` classes, described by the file `cfg`; `top` of a .data file counts.

    Raises InputError when the data set names another number of classes, or no path tells a class.
    """
    exam = make_exam(dataset, split, classes, cfg)
    labels = dataset.labels_in_paths or exam.names
    class_ids = np.array([class_in_path(str(image), labels) for image in exam.images], np.int64)
    unknown = np.flatnonzero(class_ids < 0)
    if len(unknown) == len(class_ids):
        raise InputError(
            f"{dataset.source}: no path of split '{split}' holds one of the {len(labels)} labels, expected the class of a "
            f"picture in its path, as in {labels[0]}/1.jpg; the first is {exam.images[0]}"
        )
    if len(unknown):
        first = exam.images[unknown[0]]
        logger.warning("%d of %d paths hold no label and count as wrong: %s", len(unknown), len(class_ids), first)
    top = dataset.options.get("top", "")
    return ClassExam(
        images=exam.images, class_ids=class_ids, names=exam.names, top=int(top) if top.isdigit() and int(top) else _TOP
    )

"""What a network is measured on: the images of one split, their truths, and the numbering of images and classes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.annotations import Dataset
from data.classification import class_in_path
from data.formats.coco import COCO_IDS, image_id_of, is_coco
from utils.detections import GroundTruth
from utils.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """images: the images, in list order. names: of the classes measured. category_ids: COCO's, of those classes.

    single: all labels are of class 0.
    """

    dataset: Dataset
    images: tuple[Path, ...]
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    single: bool = False

    def truth(self, index: int, size_wh: tuple[int, int]) -> GroundTruth:
        """Labels of an image of `size_wh` pixels."""
        truth = self.dataset.read(self.images[index]).truth(size_wh)
        return replace(truth, class_ids=np.zeros_like(truth.class_ids)) if self.single else truth

    def image_ids(self, indices: Sequence[int]) -> list[int]:
        """Ids of images for a results file.

        COCO's, where the data set has them or, being COCO, the files are named by them; else places in the list from 1.
        """
        if self.dataset.category_ids is None and is_coco(self.dataset.names):
            own = [image_id_of(self.images[i]) for i in indices]
        else:
            own = [self._own_id(i) for i in indices]
        ids = [image_id for image_id in own if image_id is not None]
        return ids if len(set(ids)) == len(indices) else [i + 1 for i in indices]

    def _own_id(self, index: int) -> int | None:
        image_id = self.dataset.read(self.images[index]).image_id
        return image_id if isinstance(image_id, int) else None


def make_evaluation_set(dataset: Dataset, split: str, classes: int, cfg: str, *, single: bool = False) -> EvaluationSet:
    """The exam of a split for a network of `classes` classes, described by the file `cfg`.

    Raises InputError when the data set names another number of classes, or has no images.
    """
    if dataset.names and len(dataset.names) != classes:
        raise InputError(
            f"{dataset.source}: has {len(dataset.names)} names, but {cfg} has classes={classes}; "
            "expected as many of one as of the other"
        )
    if not dataset.splits[split]:
        raise InputError(f"{dataset.source}: no images in split '{split}'")
    names = dataset.names or tuple(f"class{i}" for i in range(classes))
    ids = dataset.category_ids or (COCO_IDS if is_coco(names) else tuple(range(1, classes + 1)))
    if single:
        names, ids = ("object",), (1,)
    return EvaluationSet(dataset=dataset, images=dataset.splits[split], names=names, category_ids=ids, single=single)


_TOP = 5  # classifier.c train_classifier


@dataclass(frozen=True, kw_only=True)
class ClassificationSet:
    """images: the images, in list order. class_ids: (n,), -1 where a path tells none. names: of the classes.

    top: how many classes may be named for the second of the two accuracies.
    """

    images: tuple[Path, ...]
    class_ids: NDArray[np.int64]
    names: tuple[str, ...]
    top: int

    def classes_of(self, order: Sequence[int]) -> NDArray[np.int64]:
        """Classes of the images at these places."""
        return self.class_ids[np.asarray(order, np.int64)]


def make_classification_set(dataset: Dataset, split: str, classes: int, cfg: str) -> ClassificationSet:
    """The exam of a split for a network of `classes` classes, described by the file `cfg`; `top` of a .data file counts.

    Raises InputError when the data set names another number of classes, or no path tells a class.
    """
    exam = make_evaluation_set(dataset, split, classes, cfg)
    labels = dataset.labels_in_paths or exam.names
    class_ids = np.array([class_in_path(str(image), labels) for image in exam.images], np.int64)
    unknown = np.flatnonzero(class_ids < 0)
    if len(unknown) == len(class_ids):
        raise InputError(
            f"{dataset.source}: no path of split '{split}' holds one of the {len(labels)} labels, expected the class of a "
            f"image in its path, as in {labels[0]}/1.jpg; the first is {exam.images[0]}"
        )
    if len(unknown):
        first = exam.images[unknown[0]]
        logger.warning("%d of %d paths hold no label and count as wrong: %s", len(unknown), len(class_ids), first)
    top = dataset.options.get("top", "")
    return ClassificationSet(
        images=exam.images, class_ids=class_ids, names=exam.names, top=int(top) if top.isdigit() and int(top) else _TOP
    )

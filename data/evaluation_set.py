"""Evaluation sets: the images of a split with their ground truth and ids."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.annotations import Dataset
from data.dataset import class_of_path
from data.formats.coco import COCO_IDS, image_id_of, is_coco
from utils.detections import GroundTruth
from utils.errors import InputError

logger = logging.getLogger(__name__)

_TOP = 5  # classifier.c train_classifier


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """The images of a split, in list order, and their ground truth.

    names: class names.
    category_ids: COCO's ids of the classes.
    single_class: treat all labels as class 0.
    """

    dataset: Dataset
    images: tuple[Path, ...]
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    single_class: bool = False

    def ground_truth(self, index: int, size_wh: tuple[int, int]) -> GroundTruth:
        """Return the labels of an image of `size_wh` pixels."""
        boxes = self.dataset.read(self.images[index]).ground_truth(size_wh)
        return replace(boxes, class_ids=np.zeros_like(boxes.class_ids)) if self.single_class else boxes

    def image_ids(self, indices: Sequence[int]) -> list[int]:
        """Return the ids of images for a results file.

        These are COCO's ids from the data set or, for COCO's classes, from the file names; unless every image of the split
        has an id of its own, they are positions in the list, counted from 1.
        """
        own: list[int | None] = []
        if self.dataset.category_ids is not None:
            own = [self.dataset.read(image).image_id for image in self.images]
        elif is_coco(self.dataset.names):
            own = [image_id_of(image) for image in self.images]
        ids = [image_id for image_id in own if image_id is not None]
        all_differ = len(set(ids)) == len(self.images)
        return [ids[i] if all_differ else i + 1 for i in indices]


def make_evaluation_set(
    dataset: Dataset, split: str, classes: int, cfg: str, *, single_class: bool = False
) -> EvaluationSet:
    """Return the evaluation set of a split for a network with `classes` classes from the file `cfg`.

    Raises InputError if the data set has a different number of classes, or no images.
    """
    if dataset.names and len(dataset.names) != classes:
        raise InputError(
            f"{dataset.source}: has {len(dataset.names)} names, but {cfg} has classes={classes}; expected the same number"
        )
    if not dataset.splits[split]:
        raise InputError(f"{dataset.source}: no images in split '{split}'")
    names = dataset.names or tuple(f"class{i}" for i in range(classes))
    ids = dataset.category_ids or (COCO_IDS if is_coco(names) else tuple(range(1, classes + 1)))
    if single_class:
        names, ids = ("object",), (1,)
    return EvaluationSet(
        dataset=dataset, images=dataset.splits[split], names=names, category_ids=ids, single_class=single_class
    )


@dataclass(frozen=True, kw_only=True)
class ClassificationSet:
    """The images of a split, in list order, and their classes.

    class_ids: (n,), -1 if the path contains no label.
    names: class names.
    top: k of the top-k accuracy.
    """

    images: tuple[Path, ...]
    class_ids: NDArray[np.int64]
    names: tuple[str, ...]
    top: int


def make_classification_set(dataset: Dataset, split: str, classes: int, cfg: str) -> ClassificationSet:
    """Return the classification set of a split for a network with `classes` classes from the file `cfg`.

    k is the key `top` of the .data file.
    Raises InputError if the data set has a different number of classes, or no path contains a label.
    """
    images = make_evaluation_set(dataset, split, classes, cfg)
    labels = dataset.labels_in_paths or images.names
    class_ids = np.array([class_of_path(str(image), labels) for image in images.images], np.int64)
    unknown = np.flatnonzero(class_ids < 0)
    if len(unknown) == len(class_ids):
        raise InputError(
            f"{dataset.source}: no path of split '{split}' contains one of the {len(labels)} labels, expected the class "
            f"of an image in its path, as in {labels[0]}/1.jpg; the first path is {images.images[0]}"
        )
    if len(unknown):
        first = images.images[unknown[0]]
        logger.warning(
            "%d of %d paths contain no label and count as errors, the first is %s", len(unknown), len(class_ids), first
        )
    top = dataset.options.get("top", "")
    return ClassificationSet(
        images=images.images,
        class_ids=class_ids,
        names=images.names,
        top=int(top) if top.isdigit() and int(top) else _TOP,
    )

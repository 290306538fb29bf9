"""What a network is measured on: the pictures of one split, their truths, and the numbering of pictures and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data.annotations import Dataset
from data.formats.coco import COCO_IDS, image_id_of, is_coco
from utils.errors import InputError
from utils.truth import Truth


@dataclass(frozen=True, kw_only=True)
class Exam:
    """images: the pictures, in list order. names: of the classes measured. category_ids: COCO's, of those classes.

    single: all labels are of class 0.
    """

    dataset: Dataset
    images: tuple[Path, ...]
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    single: bool = False

    def truth(self, index: int, size_wh: tuple[int, int]) -> Truth:
        """Labels of a picture of `size_wh` pixels."""
        truth = self.dataset.read(self.images[index]).truth(size_wh)
        return replace(truth, class_ids=np.zeros_like(truth.class_ids)) if self.single else truth

    def image_ids(self, indices: Sequence[int]) -> list[int]:
        """Ids of pictures for a results file.

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


def make_exam(dataset: Dataset, split: str, classes: int, cfg: str, *, single: bool = False) -> Exam:
    """The exam of a split for a network of `classes` classes, described by the file `cfg`.

    Raises InputError when the data set names another number of classes, or has no pictures.
    """
    if dataset.names and len(dataset.names) != classes:
        raise InputError(
            f"{dataset.source}: has {len(dataset.names)} names, but {cfg} has classes={classes}; "
            "expected as many of one as of the other"
        )
    if not dataset.splits[split]:
        raise InputError(f"{dataset.source}: no pictures in split '{split}'")
    names = dataset.names or tuple(f"class{i}" for i in range(classes))
    ids = dataset.category_ids or (COCO_IDS if is_coco(names) else tuple(range(1, classes + 1)))
    if single:
        names, ids = ("object",), (1,)
    return Exam(dataset=dataset, images=dataset.splits[split], names=names, category_ids=ids, single=single)

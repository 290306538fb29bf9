"""Albumentations transforms from a file that `albumentations.save` wrote (`--augment FILE`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data.augment.base import Sample
from data.augment.geometry import BoxRows
from utils.documents import parse_yaml
from utils.errors import InputError
from utils.files import read_text
from utils.packages import need


class AlbumentationsAugment:
    """Albumentations transforms of an image and its boxes; picklable, and deterministic for a given generator.

    Boxes are clipped to the image and dropped if they become less than a pixel wide or high. An image resized by the
    transforms is resized back.
    description: from `albumentations.to_dict`.
    """

    def __init__(self, description: Mapping[str, Any], source: str) -> None:
        self.description = dict(description)
        self.source = source
        self._compose = self._build()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.description, self.source)

    def __str__(self) -> str:
        return ", ".join(type(transform).__name__ for transform in self._compose.transforms)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        image, rows = sample
        height, width = image.shape[:2]
        self._compose.set_random_seed(int(rng.integers(2**31)))
        half = rows[:, 2:4] / 2
        xyxy = np.clip(np.concatenate([rows[:, :2] - half, rows[:, :2] + half], axis=1), 0, 1)
        result = self._compose(image=image, bboxes=xyxy, class_ids=rows[:, 4])
        changed = result["image"]
        if changed.shape[:2] != (height, width):
            changed = cv2.resize(changed, (width, height), interpolation=cv2.INTER_LINEAR)
        if changed.dtype != np.uint8 or changed.size != image.size:
            found = f"{changed.dtype} {changed.shape}"
            raise InputError(f"{self.source}: the transforms return an image of {found}, expected uint8 {image.shape}")
        boxes = _box_rows(result["bboxes"], result["class_ids"])
        large_enough = (boxes[:, 2:4] >= 1 / np.array((width, height), np.float32)).all(axis=1)
        return Sample(np.ascontiguousarray(changed.reshape(image.shape)), boxes[large_enough])

    def _build(self) -> Any:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise it checks for a newer version online
        albumentations = need("albumentations", "albumentations")
        try:
            loaded = albumentations.from_dict(self.description)
        except (KeyError, TypeError, ValueError, AttributeError, ImportError) as error:
            raise InputError(f"{self.source}: cannot be read as albumentations transforms: {error}") from error
        boxes = albumentations.BboxParams(format="albumentations", label_fields=["class_ids"], clip=True)
        if isinstance(loaded, albumentations.Compose):
            return albumentations.Compose(loaded.transforms, bbox_params=boxes, p=loaded.p)
        return albumentations.Compose([loaded], bbox_params=boxes)


def _box_rows(xyxy: Any, class_ids: Any) -> BoxRows:
    corners = np.asarray(xyxy, np.float32).reshape(-1, 4)
    low, high = corners[:, :2], corners[:, 2:]
    ids = np.asarray(class_ids, np.float32).reshape(-1, 1)
    return np.concatenate([(low + high) / 2, high - low, ids], axis=1).astype(np.float32)


def read_albumentations(path: str | Path) -> AlbumentationsAugment:
    """Read transforms from a .yaml, .yml or .json file written by `albumentations.save`. Raises InputError."""
    text = read_text(path, "augmentation")
    description = parse_yaml(text, str(path))  # JSON is YAML
    if not isinstance(description, dict):
        raise InputError(
            f"{path}: expected a mapping as written by albumentations.save, found {type(description).__name__}"
        )
    return AlbumentationsAugment(description, str(path))

"""Further augmentations that a user names in a file of albumentations' own serialisation (`--augment FILE`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data.augment.crop import Image
from data.augment.truth import TruthRows, pair
from utils.errors import InputError
from utils.files import read_text


class ExtraAugment:
    """Transforms of albumentations on image and boxes; picklable, deterministic by the generator it is given.

    description: what `albumentations.to_dict` gives. Boxes are clipped to the image; those that end up with less
    than a pixel are dropped. An image whose size the transforms change is brought back to it.
    """

    def __init__(self, description: Mapping[str, Any], source: str) -> None:
        self.description = dict(description)
        self.source = source
        self._compose = self._build()

    def __getstate__(self) -> dict[str, Any]:
        return {"description": self.description, "source": self.source}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __str__(self) -> str:
        return ", ".join(type(transform).__name__ for transform in self._compose.transforms)

    def __call__(self, image: Image, truth: TruthRows, rng: np.random.Generator) -> tuple[Image, TruthRows]:
        """image: uint8 (height, width, channels); truth: float32 (n, 5), cxcywh relative to it and class id."""
        height, width = image.shape[:2]
        self._compose.set_random_seed(int(rng.integers(2**31)))
        half = truth[:, 2:4] / 2
        xyxy = np.clip(np.concatenate([truth[:, :2] - half, truth[:, :2] + half], axis=1), 0, 1)
        result = self._compose(image=image, bboxes=xyxy, class_ids=truth[:, 4])
        changed = result["image"]
        if changed.shape[:2] != (height, width):
            changed = cv2.resize(changed, (width, height), interpolation=cv2.INTER_LINEAR)
        if changed.dtype != np.uint8 or changed.size != image.size:
            found = f"{changed.dtype} {changed.shape}"
            raise InputError(f"{self.source}: the transforms turn an image into {found}, expected uint8 {image.shape}")
        boxes = _truth(result["bboxes"], result["class_ids"])
        large_enough = (boxes[:, 2:4] >= 1 / pair((width, height))).all(axis=1)
        return np.ascontiguousarray(changed.reshape(image.shape)), boxes[large_enough]

    def _build(self) -> Any:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for its newest version
        try:
            import albumentations
        except ImportError:
            raise InputError(f"{self.source}: needs the package albumentations (pip install albumentations)") from None
        try:
            loaded = albumentations.from_dict(self.description)
        except (KeyError, TypeError, ValueError, AttributeError, ImportError) as error:
            raise InputError(f"{self.source}: cannot be read as albumentations' transforms: {error}") from error
        boxes = albumentations.BboxParams(format="albumentations", label_fields=["class_ids"], clip=True)
        if isinstance(loaded, albumentations.Compose):
            return albumentations.Compose(loaded.transforms, bbox_params=boxes, p=loaded.p)
        return albumentations.Compose([loaded], bbox_params=boxes)


def _truth(xyxy: Any, class_ids: Any) -> TruthRows:
    corners = np.asarray(xyxy, np.float32).reshape(-1, 4)
    low, high = corners[:, :2], corners[:, 2:]
    ids = np.asarray(class_ids, np.float32).reshape(-1, 1)
    return np.concatenate([(low + high) / 2, high - low, ids], axis=1).astype(np.float32)


def read_extra(path: str | Path) -> ExtraAugment:
    """Transforms from a .yaml, .yml or .json file as `albumentations.save` writes it. Raises InputError."""
    import yaml

    text = read_text(path, "augmentation")
    try:
        description = yaml.safe_load(text)  # JSON is YAML
    except yaml.YAMLError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if not isinstance(description, dict):
        raise InputError(
            f"{path}: expected a mapping as written by albumentations.save, found {type(description).__name__}"
        )
    return ExtraAugment(description, str(path))

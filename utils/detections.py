"""Detections and ground truth of an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

MASKED_TARGET = -1234.0  # SECRET_NUM in the original's C sources: a class or value with this target is not trained


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Boxes found in an image, best score first.

    xyxy: float32 (n, 4), left, top, right, bottom in pixels of the original image (not clipped to it).
    scores: float32 (n,), objectness times class probability, in [0, 1].
    class_ids: int64 (n,). A box with several classes above the threshold is listed once per class.
    ranks: int64 (n,) on request: position of the box in the original's list (see inference/detector.py).
    """

    xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    ranks: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n = len(self.scores)
        assert self.xyxy.shape == (n, 4), f"xyxy is {self.xyxy.shape}, scores are {n}"
        assert self.class_ids.shape == (n,), f"class_ids is {self.class_ids.shape}, scores are {n}"

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], float, int]]:
        for box, score, class_id in zip(self.xyxy, self.scores, self.class_ids, strict=True):
            yield box, float(score), int(class_id)

    def select(self, chosen: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Detections:
        """Return the detections selected by a mask, indices or a slice."""
        return Detections(
            xyxy=self.xyxy[chosen],
            scores=self.scores[chosen],
            class_ids=self.class_ids[chosen],
            ranks=None if self.ranks is None else self.ranks[chosen],
        )

    def clipped(self, size_wh: tuple[int, int]) -> Detections:
        """Return the detections with their boxes clipped to an image of `size_wh` pixels."""
        return replace(self, xyxy=np.clip(self.xyxy, 0, np.array(size_wh * 2, np.float32)))

    def to_dict(self, names: Sequence[str] = ()) -> dict[str, Any]:
        """Return the arguments of the library supervision's Detections: sv.Detections(**found.to_dict()).

        names: class names; adds data["class_name"].
        """
        values = {"xyxy": self.xyxy, "confidence": self.scores, "class_id": self.class_ids}
        if not names:
            return values
        return values | {"data": {"class_name": np.array([names[each] for each in self.class_ids], dtype=np.str_)}}

    @classmethod
    def empty(cls) -> Detections:
        return cls(xyxy=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32), class_ids=np.zeros(0, np.int64))


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundTruth:
    """The labelled boxes of one image, in label file order.

    xyxy: float64 (n, 4), left, top, right, bottom in pixels of the original image (not clipped to it).
    class_ids: int64 (n,).
    crowd: bool (n,), COCO's `iscrowd`: the box covers a group; detecting it is neither right nor wrong.
    difficult: bool (n,), Pascal VOC's `difficult`: the box does not count as an object, and detecting it is no error.
    areas_px: float64 (n,), area that decides between small, medium and large in COCO's protocol (of the mask if known).
    size_wh: width and height of the image in pixels.
    """

    xyxy: NDArray[np.float64]
    class_ids: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    areas_px: NDArray[np.float64]
    size_wh: tuple[int, int]

    def __post_init__(self) -> None:
        n = len(self.class_ids)
        assert self.xyxy.shape == (n, 4), f"xyxy is {self.xyxy.shape}, class_ids are {n}"
        assert self.crowd.shape == self.difficult.shape == self.areas_px.shape == (n,), "one flag and area per box"

    def __len__(self) -> int:
        return len(self.class_ids)

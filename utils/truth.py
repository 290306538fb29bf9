"""What is really in one picture: the other half of every measurement (see utils/detections.py)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """The labelled boxes of one picture, in label file order.

    xyxy: float64 (n, 4), left, top, right, bottom in pixels of the original picture (not clipped to it).
    class_ids: int64 (n,).
    crowd: bool (n,), COCO's `iscrowd`: the box covers a group; finding it is neither right nor wrong.
    difficult: bool (n,), Pascal VOC's `difficult`: not counted as an object, finding it is not a mistake.
    areas_px: float64 (n,), area that decides small, medium or large in COCO's protocol (of the mask where known).
    size_wh: width and height of the picture in pixels.
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

"""Labels in memory, independent of the file format.

The readers of the formats return `Annotation`s and the writers accept them; a `Dataset` lists the images of each split and
reads the labels of one image. Boxes are relative to the image, like Darknet's labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.detections import GroundTruth
from utils.errors import InputError
from utils.files import exists

MALFORMED = "malformed label"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A problem in a data set.

    kind: category, for counting.
    place: the file.
    line: counted from 1; None for the whole file.
    """

    kind: str
    place: str
    line: int | None = None
    text: str

    def __str__(self) -> str:
        where = self.place if self.line is None else f"{self.place}:{self.line}"
        return f"{where}: {self.text}"


def image_finding(image: Path, error: InputError) -> Finding:
    """Return the finding for an image that cannot be read."""
    kind = "image unreadable" if exists(image) else "image missing"
    return Finding(kind=kind, place=str(image), text=str(error).removeprefix(f"{image}: "))


_OF_EACH_BOX = ("cxcywh_rel", "class_ids", "crowd", "difficult", "areas_px", "lines")


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotation:
    """The labels of one image; n may be 0 (background).

    image: path of the image.
    size_wh: width and height in pixels if the label format stores them, else None.
    cxcywh_rel: float64 (n, 4), centre and size relative to the image's width and height; not clipped to [0, 1].
    class_ids: int64 (n,), index into the data set's names; not checked against their number.
    crowd, difficult: bool (n,), COCO's `iscrowd` and Pascal VOC's `difficult`.
    areas_px: float64 (n,), COCO's `area` in square pixels; NaN if the format has none.
    lines: int64 (n,), 1-based line of each label in `label_path`; 0 if the format has no lines.
    label_path: the file with the labels; None if there is none.
    image_id: the image's id if the format has ids (COCO), else None.
    findings: problems; a malformed label is listed here instead of among the boxes.
    """

    image: Path
    size_wh: tuple[int, int] | None = None
    cxcywh_rel: NDArray[np.float64]
    class_ids: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    areas_px: NDArray[np.float64]
    lines: NDArray[np.int64]
    label_path: Path | None = None
    image_id: int | None = None
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.class_ids)
        assert self.cxcywh_rel.shape == (n, 4), f"cxcywh_rel is {self.cxcywh_rel.shape}, class_ids are {n}"
        for name in _OF_EACH_BOX[2:]:
            assert getattr(self, name).shape == (n,), f"{name} is {getattr(self, name).shape}, class_ids are {n}"

    def __len__(self) -> int:
        return len(self.class_ids)

    @property
    def unusable(self) -> bool:
        """Whether there are labels but none can be read, so that the image must not count as background."""
        return not len(self) and any(finding.kind == MALFORMED for finding in self.findings)

    @classmethod
    def of(
        cls,
        image: Path,
        cxcywh_rel: ArrayLike = (),
        class_ids: ArrayLike = (),
        *,
        crowd: ArrayLike | None = None,
        difficult: ArrayLike | None = None,
        areas_px: ArrayLike | None = None,
        lines: ArrayLike | None = None,
        size_wh: tuple[int, int] | None = None,
        label_path: Path | None = None,
        image_id: int | None = None,
        findings: tuple[Finding, ...] = (),
    ) -> Annotation:
        """Create an Annotation from array-likes; default: no crowd, not difficult, no area, no line."""
        ids = np.asarray(class_ids, np.int64).reshape(-1)
        n = len(ids)
        return cls(
            image=image,
            size_wh=size_wh,
            cxcywh_rel=np.asarray(cxcywh_rel, np.float64).reshape(-1, 4),
            class_ids=ids,
            crowd=np.zeros(n, np.bool_) if crowd is None else np.asarray(crowd, np.bool_),
            difficult=np.zeros(n, np.bool_) if difficult is None else np.asarray(difficult, np.bool_),
            areas_px=np.full(n, np.nan) if areas_px is None else np.asarray(areas_px, np.float64),
            lines=np.zeros(n, np.int64) if lines is None else np.asarray(lines, np.int64),
            label_path=label_path,
            image_id=image_id,
            findings=findings,
        )

    def select(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Annotation:
        """Return the labels selected by a mask or indices."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in _OF_EACH_BOX})

    def ground_truth(self, size_wh: tuple[int, int]) -> GroundTruth:
        """Return the labels in pixels of an image of `size_wh`; unknown areas are replaced by those of the boxes."""
        scale = np.array([*size_wh, *size_wh], np.float64)
        centre, half = self.cxcywh_rel[:, :2], self.cxcywh_rel[:, 2:] / 2
        xyxy = np.concatenate([centre - half, centre + half], axis=1) * scale
        box_areas = self.cxcywh_rel[:, 2] * self.cxcywh_rel[:, 3] * (size_wh[0] * size_wh[1])
        return GroundTruth(
            xyxy=xyxy,
            class_ids=self.class_ids,
            crowd=self.crowd,
            difficult=self.difficult,
            areas_px=np.where(np.isnan(self.areas_px), box_areas, self.areas_px),
            size_wh=size_wh,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Description of a data set, cheap to create and to send to worker processes; labels are read on demand.

    source: the file or folder it was opened from.
    names: class names, in order of class id.
    splits: images of each split ("train", "val", ...), in list order; duplicates are kept.
    read: function that reads the labels of one image; bad labels become findings, not errors.
    category_ids: COCO's category id of each class id, if the data set has its own.
    path_labels: text that identifies each class in the path of a classifier's image; see `labels_in_paths`.
    options: further keys of a `.data` file (`backup`, `eval`, ...).
    labelled: false for a test set whose labels are not public (COCO JSON without annotations).
    findings: problems with the lists.
    """

    source: Path
    names: tuple[str, ...]
    splits: Mapping[str, tuple[Path, ...]]
    read: Callable[[Path], Annotation]
    category_ids: tuple[int, ...] | None = None
    path_labels: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    labelled: bool = True
    findings: tuple[Finding, ...] = ()

    @property
    def labels_in_paths(self) -> tuple[str, ...]:
        """The text that occurs in the image paths of each class: `path_labels`, by default the names."""
        return self.path_labels or self.names

    def annotations(self, split: str) -> Iterator[Annotation]:
        """Yield the labels of every image of a split, in order."""
        return (self.read(image) for image in self.splits[split])

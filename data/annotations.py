"""Labels in memory: one type for every format on disk.

A format's reader makes `Annotation`s, its writer takes them; a `Dataset` says which images belong to which
split and how the labels of one image are read. Boxes are relative to the image, as Darknet's labels are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.detections import GroundTruth
from utils.errors import InputError

MALFORMED = "malformed label"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something wrong with a data set: `kind` for counting, `place` and `line` to go and look, `text` to read.

    line: 1-based line of `place`, or None where the whole file is meant.
    """

    kind: str
    place: str
    line: int | None = None
    text: str

    def __str__(self) -> str:
        where = self.place if self.line is None else f"{self.place}:{self.line}"
        return f"{where}: {self.text}"


def image_finding(image: Path, error: InputError) -> Finding:
    """The finding for an image that cannot be read."""
    kind = "image unreadable" if image.exists() else "image missing"
    return Finding(kind=kind, place=str(image), text=str(error).removeprefix(f"{image}: "))


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotation:
    """The labels of one image; n may be 0 (background).

    image: path of the image.
    size_wh: width and height in pixels where the label format records them, else None.
    cxcywh_rel: float64 (n, 4), centre and size relative to the image's width and height; not clipped to [0, 1].
    class_ids: int64 (n,), index into the data set's names; not checked against their number.
    crowd, difficult: bool (n,), COCO's `iscrowd` and Pascal VOC's `difficult`.
    areas_px: float64 (n,), COCO's `area` in square pixels, NaN where the format has none.
    lines: int64 (n,), 1-based line of each label in `label_path`, 0 where the format has no lines.
    label_path: the file the labels came from, None when there is none (an image without labels).
    image_id: the image's id in its format (COCO), else None.
    findings: what was wrong on the way; every bad line stands here and not among the boxes.
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
    image_id: int | str | None = None
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.class_ids)
        assert self.cxcywh_rel.shape == (n, 4), f"cxcywh_rel is {self.cxcywh_rel.shape}, class_ids are {n}"
        for name in ("crowd", "difficult", "areas_px", "lines"):
            assert getattr(self, name).shape == (n,), f"{name} is {getattr(self, name).shape}, class_ids are {n}"

    def __len__(self) -> int:
        return len(self.class_ids)

    @property
    def unusable(self) -> bool:
        """Whether there are labels, but none that can be read: the image is no negative example."""
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
        image_id: int | str | None = None,
        findings: tuple[Finding, ...] = (),
    ) -> Annotation:
        """From anything array-like; what is left out is filled in (no crowd, not difficult, no area, no line)."""
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
        """The labels at a mask or at indices; everything about the image is kept."""
        return replace(
            self,
            cxcywh_rel=self.cxcywh_rel[chosen],
            class_ids=self.class_ids[chosen],
            crowd=self.crowd[chosen],
            difficult=self.difficult[chosen],
            areas_px=self.areas_px[chosen],
            lines=self.lines[chosen],
        )

    def ground_truth(self, size_wh: tuple[int, int]) -> GroundTruth:
        """The labels in pixels of an image of `size_wh`; an unknown area is that of the box."""
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
    """Descriptor of a data set: cheap to make and to send to worker processes; labels are read on demand.

    kind: "darknet", "coco", "voc", "ultralytics" or "images".
    source: the file or folder it was opened from.
    names: class names, in order of class id.
    splits: images of each split ("train", "val", ...), in list order; duplicates are kept.
    read: labels of one image; raises nothing for bad labels (see Annotation.findings).
    category_ids: COCO's category id of each class id, where the data set has its own.
    path_labels: where given, the texts by which a classifier's images tell their class; see `labels_in_paths`.
    options: further settings of the file that people rely on (`backup`, `eval`, ... of a `.data`).
    findings: what was wrong with the lists themselves.
    """

    kind: str
    source: Path
    names: tuple[str, ...]
    splits: Mapping[str, tuple[Path, ...]]
    read: Callable[[Path], Annotation]
    category_ids: tuple[int, ...] | None = None
    path_labels: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def labels_in_paths(self) -> tuple[str, ...]:
        """Of each class the text that stands in the paths of its images; the name, if the data set says nothing else."""
        return self.path_labels or self.names

    def annotations(self, split: str) -> Iterator[Annotation]:
        """Labels of every image of a split, one after the other."""
        return (self.read(image) for image in self.splits[split])

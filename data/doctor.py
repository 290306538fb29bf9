"""The dataset doctor: check every image and label of a split before training or evaluation.

Images are not decoded; size and orientation are read from their headers (data/image.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.annotations import MALFORMED, Annotation, Dataset, Finding, image_finding
from data.image import ImageHeader, image_header
from utils.errors import InputError

# Consequence of each kind of finding, in the order of the report.
CONSEQUENCES = {
    "image missing": "the image cannot be used",
    "image unreadable": "the image cannot be used",
    "malformed image entry": "the entry is not used",
    "labels missing": "the image counts as background",
    MALFORMED: "the label is not used; training skips an image that has no other label",
    "class beyond names": "the label is not used",
    "polygon": "its bounding box is used",
    "degenerate box": "training leaves it out; evaluation can never match it",
    "out of range": "training clips it or leaves it out; evaluation uses it unchanged",
    "duplicate label": "every copy is used",
    "duplicate image": "every copy is used",
    "size differs": "boxes are placed by the size that the labels state",
    "class count": "the number of names is used",
    "images outside the splits": "they are not used",
}
_SLACK_PX = 1.5  # tolerates rounding to whole pixels, and counting from 0 or from 1
_SAME = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class DatasetReport:
    """Contents and problems of a split.

    images: number of images in the list.
    readable: bool (images,).
    background: number of readable images without labels.
    turned: number of images that are rotated on reading (EXIF orientation).
    class_counts: int64 (classes,), number of labels of each class.
    sizes_wh: int64 (readable images, 2), in pixels.
    cxcywh_rel, class_ids: float64 (labels, 4) and int64 (labels,), all usable labels.
    per_image: number of labels of each image.
    """

    split: str
    names: tuple[str, ...]
    images: int
    readable: NDArray[np.bool_]
    background: int
    turned: int
    class_counts: NDArray[np.int64]
    sizes_wh: NDArray[np.int64]
    cxcywh_rel: NDArray[np.float64]
    class_ids: NDArray[np.int64]
    per_image: NDArray[np.int64]
    findings: tuple[Finding, ...]

    @property
    def labels(self) -> int:
        return len(self.cxcywh_rel)

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each kind that occurred, in the order of the report."""
        counter = Counter(finding.kind for finding in self.findings)
        return {kind: counter[kind] for kind in CONSEQUENCES if counter[kind]}

    def require_labels(self, source: object) -> None:
        """Raise InputError without a usable label or image, naming the first problem, missing images first."""
        if self.labels and self.readable.any():
            return
        what = "no usable labels" if self.readable.any() else f"none of the {self.images} images can be read"
        first = next((finding for kind in CONSEQUENCES for finding in self.findings if finding.kind == kind), None)
        raise InputError(
            f"{source}: {what} in split '{self.split}'{f', the first finding is {first}' if first else ''}"
        )


def check_dataset(dataset: Dataset, split: str, *, workers: int = 4) -> DatasetReport:
    """Check every image and label of a split. workers: reading threads. Raises InputError if there are no images."""
    images = dataset.splits[split]
    if not images:
        raise InputError(f"{dataset.source}: no images in split '{split}'")
    classes = len(dataset.names)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        checked = list(pool.map(partial(_check_image, dataset, classes), images))
    annotations = [annotation for annotation, _, _ in checked]
    headers = [header for _, header, _ in checked]
    findings = [*dataset.findings, *_duplicate_images(images, dataset.source)]
    findings += [finding for _, _, own in checked for finding in own]
    return DatasetReport(
        split=split,
        names=dataset.names,
        images=len(images),
        readable=np.array([header is not None for header in headers]),
        background=sum(
            header is not None and not len(labels) and not labels.unusable
            for labels, header in zip(annotations, headers, strict=True)
        ),
        turned=sum(header is not None and bool(header.turned) for header in headers),
        class_counts=np.bincount(np.concatenate([a.class_ids for a in annotations]), minlength=classes),
        sizes_wh=np.array([header.size_wh for header in headers if header is not None], np.int64).reshape(-1, 2),
        cxcywh_rel=np.concatenate([a.cxcywh_rel for a in annotations]),
        class_ids=np.concatenate([a.class_ids for a in annotations]),
        per_image=np.array([len(a) for a in annotations], np.int64),
        findings=tuple(findings),
    )


def _check_image(dataset: Dataset, classes: int, image: Path) -> tuple[Annotation, ImageHeader | None, list[Finding]]:
    """Return the usable labels, header (None if unreadable) and findings of one image."""
    annotation = dataset.read(image)
    findings = list(annotation.findings)
    header = None
    try:
        header = image_header(image)
    except InputError as error:
        findings.append(image_finding(image, error))
    size_wh = header.size_wh if header else None
    if size_wh and annotation.size_wh and size_wh != annotation.size_wh:
        text = f"is {_by(size_wh)}, its labels in {annotation.label_path} say {_by(annotation.size_wh)}"
        findings.append(Finding(kind="size differs", place=str(image), text=text))
    findings += _box_findings(annotation, classes, size_wh)
    usable = annotation.class_ids < classes if classes else np.ones(len(annotation), np.bool_)
    return annotation.select(usable), header, findings


def _by(size_wh: tuple[int, int]) -> str:
    return f"{size_wh[0]}x{size_wh[1]}"


def _box_findings(annotation: Annotation, classes: int, size_wh: tuple[int, int] | None) -> Iterator[Finding]:
    if not len(annotation):
        return
    centre, size = annotation.cxcywh_rel[:, :2], annotation.cxcywh_rel[:, 2:]
    slack = _SLACK_PX / np.array(annotation.size_wh or size_wh or (1000, 1000), np.float64)
    beyond = annotation.class_ids >= classes if classes else np.zeros(len(annotation), np.bool_)
    degenerate = (size <= 0).any(axis=1)
    outside = ((centre - size / 2 < -slack) | (centre + size / 2 > 1 + slack)).any(axis=1)
    # A degenerate box is not reported again for lying outside the image.
    kinds = {
        "class beyond names": (beyond, "class id {id} is not among the {classes} names"),
        "degenerate box": (degenerate, "box {box} has no area"),
        "out of range": (outside & ~degenerate, "box {box} reaches outside the image"),
        "duplicate label": (_repeats(annotation), "class {id}, box {box} is listed twice"),
    }
    place = str(annotation.label_path or annotation.image)
    for kind, (mask, text) in kinds.items():
        for i in np.flatnonzero(mask):
            box = " ".join(f"{value:.6g}" for value in annotation.cxcywh_rel[i])
            line = int(annotation.lines[i]) or None
            words = text.format(id=annotation.class_ids[i], classes=classes, box=box)
            words = words if line else f"{words} (image {annotation.image.name})"
            yield Finding(kind=kind, place=place, line=line, text=words)


def _repeats(annotation: Annotation) -> NDArray[np.bool_]:
    """Return a mask of the labels that repeat an earlier one."""
    rows = np.column_stack([annotation.class_ids, np.round(annotation.cxcywh_rel / _SAME)])
    repeats = np.ones(len(rows), np.bool_)
    repeats[np.unique(rows, axis=0, return_index=True)[1]] = False
    return repeats


def _duplicate_images(images: Iterable[Path], source: Path) -> Iterator[Finding]:
    for image, count in Counter(images).items():
        if count > 1:
            text = f"is listed {count} times in {source}"
            yield Finding(kind="duplicate image", place=str(image), text=text)


def report(d: DatasetReport, *, examples: int = 3) -> str:
    """Return the text for the console: counts, and the first few findings of each kind with file and line."""
    present = f"{int((d.class_counts > 0).sum())} "
    present += f"of {len(d.names)} classes" if d.names else "classes without names (--names FILE)"
    lines = [
        f"{d.split}: {d.images} images ({int(d.readable.sum())} readable, {d.background} background), "
        f"{d.labels} labels, {present}"
    ]
    if d.turned:
        lines.append(
            f"  {d.turned} images are turned upright by their EXIF orientation; labels must refer to the upright image"
        )
    for kind, count in d.counts.items():
        lines.append(f"  {count} x {kind}: {CONSEQUENCES[kind]}")
        own = [finding for finding in d.findings if finding.kind == kind]
        lines += [f"      {finding}" for finding in own[:examples]]
        if count > examples:
            lines.append(f"      and {count - examples} more")
    if not d.counts:
        lines.append("  no problems found")
    return "\n".join(lines)


def full_text(diagnosis: DatasetReport) -> str:
    """Return a line of tab-separated kind, place and text per finding, then the number of labels of each class."""
    rows = [f"{finding.kind}\t{finding}" for finding in diagnosis.findings]
    counts = zip(diagnosis.names, diagnosis.class_counts.tolist(), strict=False)
    return "\n".join([*rows, *(f"labels of class\t{name}\t{count}" for name, count in counts)]) + "\n"

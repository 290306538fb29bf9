"""The dataset doctor: looks at every image and label before anything is trained or measured on them.

Images are not decoded: size and end of file are read from their bytes (data/image.py).
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

from data.annotations import Annotation, Dataset, Finding, image_finding
from data.image import image_size
from utils.errors import InputError

# What follows from each kind of finding, in the order of the report.
CONSEQUENCES = {
    "image missing": "the image cannot be used",
    "image unreadable": "the image cannot be used",
    "malformed image entry": "the entry is not used",
    "labels missing": "the image counts as background",
    "malformed label": "the label is not used, the rest of its file is",
    "class beyond names": "the label is not used",
    "degenerate box": "training leaves it out, in a test it can never be found",
    "out of range": "training clips it or leaves it out, a test takes it as it is",
    "duplicate label": "used as often as it stands there",
    "duplicate image": "used as often as it stands there",
    "size differs": "the labels' own size is used to place the boxes",
    "class count": "the names count",
}
_SLACK_PX = 1.5  # rounding to whole pixels, and counting them from 0 or 1, is no mistake
_SAME = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class DatasetReport:
    """What a split holds and what is wrong with it.

    images: images in the list. readable: bool (images,). background: readable images without labels.
    class_counts: int64 (classes,), labels of each class. sizes_wh: int64 (readable images, 2) in pixels.
    cxcywh_rel: float64 (labels, 4), all usable labels. class_ids: int64 (labels,). per_image: labels of each image.
    """

    split: str
    names: tuple[str, ...]
    images: int
    readable: NDArray[np.bool_]
    background: int
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
        """Findings of each kind, in the order of the report; kinds that did not occur are left out."""
        counter = Counter(finding.kind for finding in self.findings)
        return {kind: counter[kind] for kind in CONSEQUENCES if counter[kind]}


def check_dataset(dataset: Dataset, split: str, *, workers: int = 4) -> DatasetReport:
    """Look at every image and label of a split. Raises InputError when the split has no images.

    workers: threads that read at the same time.
    """
    images = dataset.splits[split]
    if not images:
        raise InputError(f"{dataset.source}: no images in split '{split}'")
    classes = len(dataset.names)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        examined = list(pool.map(partial(_examine_image, dataset, classes), images))
    annotations = [annotation for annotation, _, _ in examined]
    sizes = [size for _, size, _ in examined]
    findings = [*dataset.findings, *_duplicate_images(images, dataset.source)]
    findings += [finding for _, _, own in examined for finding in own]
    return DatasetReport(
        split=split,
        names=dataset.names,
        images=len(images),
        readable=np.array([size is not None for size in sizes]),
        background=sum(size is not None and not len(a) for a, size in zip(annotations, sizes, strict=True)),
        class_counts=np.bincount(np.concatenate([a.class_ids for a in annotations]), minlength=classes),
        sizes_wh=np.array([size for size in sizes if size is not None], np.int64).reshape(-1, 2),
        cxcywh_rel=np.concatenate([a.cxcywh_rel for a in annotations]),
        class_ids=np.concatenate([a.class_ids for a in annotations]),
        per_image=np.array([len(a) for a in annotations], np.int64),
        findings=tuple(findings),
    )


def _examine_image(
    dataset: Dataset, classes: int, image: Path
) -> tuple[Annotation, tuple[int, int] | None, list[Finding]]:
    """Usable labels, size and findings of one image."""
    annotation = dataset.read(image)
    findings = list(annotation.findings)
    size_wh = None
    try:
        size_wh = image_size(image)
    except InputError as error:
        findings.append(image_finding(image, error))
    if size_wh and annotation.size_wh and size_wh != annotation.size_wh:
        text = f"is {_by(size_wh)}, its labels in {annotation.label_path} say {_by(annotation.size_wh)}"
        findings.append(Finding(kind="size differs", place=str(image), text=text))
    findings += _box_findings(annotation, classes, size_wh)
    usable = annotation.class_ids < classes if classes else np.ones(len(annotation), np.bool_)
    return annotation.select(usable), size_wh, findings


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
    # A degenerate box is no more than a point: that it lies outside as well adds nothing.
    kinds = {
        "class beyond names": (beyond, "class id {id} is not among the {classes} names"),
        "degenerate box": (degenerate, "box {box} has no area"),
        "out of range": (outside & ~degenerate, "box {box} reaches outside the image"),
        "duplicate label": (_repeats(annotation), "class {id}, box {box} stands here twice"),
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
    """True for labels that stood there before."""
    rows = np.column_stack([annotation.class_ids, np.round(annotation.cxcywh_rel / _SAME)])
    repeats = np.ones(len(rows), np.bool_)
    repeats[np.unique(rows, axis=0, return_index=True)[1]] = False
    return repeats


def _duplicate_images(images: Iterable[Path], source: Path) -> Iterator[Finding]:
    for image, count in Counter(images).items():
        if count > 1:
            text = f"stands {count} times in the list of {source}"
            yield Finding(kind="duplicate image", place=str(image), text=text)


def report(diagnosis: DatasetReport, *, examples: int = 3) -> str:
    """Text for the console: counts, and for each kind of finding the first few with file and line."""
    d = diagnosis
    present = int((d.class_counts > 0).sum())
    lines = [
        f"{d.split}: {d.images} images ({int(d.readable.sum())} readable, {d.background} background), "
        f"{d.labels} labels, {present} of {len(d.names)} classes"
    ]
    for kind, count in d.counts.items():
        lines.append(f"  {count} x {kind}: {CONSEQUENCES[kind]}")
        own = [finding for finding in d.findings if finding.kind == kind]
        lines += [f"      {finding}" for finding in own[:examples]]
        if count > examples:
            lines.append(f"      and {count - examples} more")
    if not d.counts:
        lines.append("  nothing wrong found")
    return "\n".join(lines)


def full_text(diagnosis: DatasetReport) -> str:
    """Every finding, a line each: kind, place and line, text, separated by tabs; then labels of each class."""
    rows = [f"{finding.kind}\t{finding}" for finding in diagnosis.findings]
    counts = zip(diagnosis.names, diagnosis.class_counts.tolist(), strict=False)
    return "\n".join([*rows, *(f"labels of class\t{name}\t{count}" for name, count in counts)]) + "\n"

"""Training samples by key: the same key always yields the same sample, in any process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from data.annotations import Annotation, Finding, image_finding
from data.augment.base import DrawSample, Sample
from data.augment.detection import DetectionAugment
from data.augment.geometry import pad_boxes
from data.image import Image, read_image
from data.image_cache import ImageCache
from data.sampling import ImageSampler
from utils.detections import MASKED_TARGET
from utils.errors import InputError

ATTEMPTS = 20
"""Images tried for a sample before giving up."""


class SampleKey(NamedTuple):
    """Everything that determines a sample except the seed: iteration, slot in the batch, and size in pixels."""

    iteration: int
    slot: int
    width: int
    height: int


class TrainSample(NamedTuple):
    """A training sample.

    image: uint8 (channels, height, width), RGB; None if no image could be read.
    ground_truth: float32 (max_boxes, 5), centre x, centre y, width, height relative to the image and class id, with zero
        rows after the last box; for a classifier (classes,), the target of each class.
    findings: problems of the images and labels used.
    """

    image: NDArray[np.uint8] | None
    ground_truth: NDArray[np.float32]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingDataset(torch.utils.data.Dataset[TrainSample], ABC):
    """Random images with their ground truth, augmented. Images are drawn with replacement, as in the original.

    An image that cannot be read is reported and another one drawn instead. Subclasses provide the ground truth of an
    image and the form in which it is batched.
    """

    images: Sequence[Path]
    augment: Callable[[DrawSample, np.random.Generator, tuple[int, int]], Sample]
    seed: int
    channels: int = 3
    cache: ImageCache | None = None
    sampler: ImageSampler

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: SampleKey) -> TrainSample:
        sample, findings, _ = self._make(key)
        image = np.ascontiguousarray(sample.image.transpose(2, 0, 1)) if sample else None
        return TrainSample(image, self._batched(sample.ground_truth if sample else None), tuple(findings))

    def files(self, key: SampleKey) -> list[Path]:
        """Return the images that the sample of a key is made of."""
        return [self.images[index] for index in self._make(key)[2]]

    def _make(self, key: SampleKey) -> tuple[Sample | None, list[Finding], list[int]]:
        """Return the augmented sample (None if no image could be read), findings, and indices of the images used."""
        findings: list[Finding] = []
        used: list[int] = []
        size_wh = key.width, key.height

        def draw(rng: np.random.Generator) -> Sample:
            for _ in range(ATTEMPTS):
                index = self.sampler(rng, size_wh)
                try:
                    image = self._image(index)
                except InputError as error:
                    findings.append(image_finding(self.images[index], error))
                    continue
                ground_truth = self._ground_truth(self.images[index], findings)
                if ground_truth is not None:
                    used.append(index)
                    return Sample(image, ground_truth)
            raise _NoReadableImage

        try:
            sample = self.augment(draw, np.random.default_rng((self.seed, key.iteration, key.slot)), size_wh)
        except _NoReadableImage:
            return None, findings, used
        return sample, findings, used

    @abstractmethod
    def _ground_truth(self, image: Path, findings: list[Finding]) -> NDArray[np.float32] | None:
        """Return ground truth as in `Sample`, None if the image cannot be used; add problems to the findings."""

    @abstractmethod
    def _batched(self, ground_truth: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Return ground truth as in `TrainSample`; all zeros for None."""

    def _image(self, index: int) -> Image:
        cached = self.cache[index] if self.cache is not None else None
        return cached if cached is not None else read_image(self.images[index], self.channels)


class _NoReadableImage(Exception):
    """None of ATTEMPTS images could be read."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionDataset(TrainingDataset):
    """Samples with boxes. Crowd and difficult boxes are left out, as in the original's label converters.

    Unusable labels are reported and left out, as are images whose labels are all malformed.
    read: function that reads the labels of an image.
    """

    augment: DetectionAugment
    read: Callable[[Path], Annotation]

    def _ground_truth(self, image: Path, findings: list[Finding]) -> NDArray[np.float32] | None:
        labels, classes = self.read(image), self.augment.classes
        findings.extend(labels.findings)
        if labels.unusable:
            return None
        for class_id in np.unique(labels.class_ids[(labels.class_ids < 0) | (labels.class_ids >= classes)]):
            text = f"class {class_id}, expected 0 to {classes - 1}; the box is left out"
            place = str(labels.label_path or labels.image)
            findings.append(Finding(kind="class beyond names", place=place, text=text))
        used = ~(labels.crowd | labels.difficult)
        return np.column_stack([labels.cxcywh_rel[used], labels.class_ids[used]]).astype(np.float32)

    def _batched(self, ground_truth: NDArray[np.float32] | None) -> NDArray[np.float32]:
        rows = np.zeros((0, 5), np.float32) if ground_truth is None else ground_truth
        return pad_boxes(rows, self.augment.max_boxes)


@dataclass(frozen=True, kw_only=True)
class ClassHierarchy:
    """A tree of classes (data.c fill_hierarchy).

    parents: parent of each class; -1 for a root. group_sizes: size of each group of siblings, in class order.
    """

    parents: Sequence[int]
    group_sizes: Sequence[int]

    def with_ancestors(self, target: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the target (classes,) with 1 for every ancestor of its classes."""
        filled, parents = target.copy(), np.asarray(self.parents)
        above = np.unique(parents[filled != 0])
        while (above >= 0).any():
            filled[above[above >= 0]] = 1
            above = np.unique(parents[above[above >= 0]])
        return filled

    def masked(self, target: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the target with `MASKED_TARGET` in every group of siblings without a class of the image."""
        starts = np.concatenate([[0], np.cumsum(self.group_sizes)[:-1]])
        empty = ~np.logical_or.reduceat(target != 0, starts)
        return np.where(np.repeat(empty, self.group_sizes), np.float32(MASKED_TARGET), target)


def class_of_path(path: str, labels: Sequence[str]) -> int:
    """Return the first class whose label occurs in the path, or -1 (classifier.c validate_classifier_single)."""
    return next((number for number, label in enumerate(labels) if label in path), -1)


def class_target(path: str, labels: Sequence[str], label_smooth_eps: float) -> NDArray[np.float32]:
    """Return 1 - eps for each label that occurs in the path, eps / (classes - 1) for the others (fill_truth_smooth)."""
    found = np.array([label in path for label in labels])
    other = label_smooth_eps / (len(labels) - 1) if len(labels) > 1 else 0.0
    return np.where(found, 1 - label_smooth_eps, other).astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassificationDataset(TrainingDataset):
    """Samples of images whose paths determine their classes (load_labels_paths, src/data.c).

    labels: one text per class; an image belongs to each class whose label occurs anywhere in its path. A path with
        none or several of them is reported but used, as in the original.
    """

    labels: Sequence[str]
    label_smooth_eps: float = 0.0
    hierarchy: ClassHierarchy | None = None

    def _ground_truth(self, image: Path, findings: list[Finding]) -> NDArray[np.float32]:
        path = str(image)
        found = [label for label in self.labels if label in path]
        if len(found) != 1:
            text = f"labels in the path are {', '.join(found) or 'none'}, expected exactly one"
            findings.append(Finding(kind="class of path", place=path, text=text))
        target = class_target(path, self.labels, self.label_smooth_eps)
        return self.hierarchy.with_ancestors(target) if self.hierarchy else target

    def _batched(self, ground_truth: NDArray[np.float32] | None) -> NDArray[np.float32]:
        if ground_truth is None:
            return np.zeros(len(self.labels), np.float32)
        # Masked after mixing, so that the mask value itself is never mixed; the original averages it with other targets.
        return self.hierarchy.masked(ground_truth) if self.hierarchy else ground_truth


def collate(samples: Sequence[TrainSample]) -> tuple[torch.Tensor, torch.Tensor, tuple[Finding, ...]]:
    """Return images (b, channels, height, width), ground truth and findings; b = 0 if a sample has no image."""
    images = [sample.image for sample in samples if sample.image is not None]
    complete = len(images) == len(samples)
    return (
        torch.from_numpy(np.stack(images)) if complete else torch.empty(0, dtype=torch.uint8),
        torch.from_numpy(np.stack([sample.ground_truth for sample in samples])),
        tuple(finding for sample in samples for finding in sample.findings),
    )

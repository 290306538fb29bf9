"""Training samples of a classifier: the class follows from the image's path (load_labels_paths, src/data.c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data.augment.classification import ClassificationAugment, LabelledImage, target_of
from data.dataset import ATTEMPTS, ImageStore, NoImage, Problem, SampleKey, TrainSample, load
from data.sampling import Picker
from utils.detections import MASKED_TARGET
from utils.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """A tree of classes (data.c fill_hierarchy).

    parents: the class above each class, -1 at the top. group_sizes: number of siblings of each group, in class order.
    """

    parents: Sequence[int]
    group_sizes: Sequence[int]

    def with_ancestors(self, target: NDArray[np.float32]) -> NDArray[np.float32]:
        """The target (classes,) with 1 for every ancestor of its classes."""
        filled, parents = target.copy(), np.asarray(self.parents)
        above = np.unique(parents[filled != 0])
        while (above >= 0).any():
            filled[above[above >= 0]] = 1
            above = np.unique(parents[above[above >= 0]])
        return filled

    def masked(self, target: NDArray[np.float32]) -> NDArray[np.float32]:
        """The target with `MASKED_TARGET` in every group of siblings that has no class of it."""
        starts = np.concatenate([[0], np.cumsum(self.group_sizes)[:-1]])
        empty = ~np.logical_or.reduceat(target != 0, starts)
        return np.where(np.repeat(empty, self.group_sizes), np.float32(MASKED_TARGET), target)


def class_in_path(path: str, labels: Sequence[str]) -> int:
    """The first class whose label stands in the path, -1 if there is none (classifier.c validate_classifier_single)."""
    return next((number for number, label in enumerate(labels) if label in path), -1)


class ClassificationDataset(torch.utils.data.Dataset[TrainSample]):
    """Random images of a list, augmented; `truth` of a sample is the wanted value of each class.

    labels: texts, one for each class; an image belongs to those that stand anywhere in its path. A path with none or
    several is reported and used as it is, as in the original.
    """

    def __init__(
        self,
        images: Sequence[Path],
        labels: Sequence[str],
        augment: ClassificationAugment,
        *,
        seed: int,
        channels: int = 3,
        label_smooth_eps: float = 0.0,
        hierarchy: Hierarchy | None = None,
        cache: ImageStore | None = None,
        picker: Picker | None = None,
    ) -> None:
        if not images or not labels:
            raise InputError(f"{len(images)} images and {len(labels)} labels, expected at least one of each")
        self.images, self.labels = tuple(images), tuple(labels)
        self.augment, self.seed, self.channels, self.cache = augment, seed, channels, cache
        self.picker = picker or Picker(len(self.images))
        self.label_smooth_eps, self.hierarchy = label_smooth_eps, hierarchy

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: SampleKey) -> TrainSample:
        problems: list[Problem] = []
        sample = self._sample(key, problems, [])
        if sample is None:
            return TrainSample(None, np.zeros(len(self.labels), np.float32), 0, tuple(problems))
        # Masked after mixing, so that the mark itself is never mixed; the original averages it with other targets.
        target = self.hierarchy.masked(sample.target) if self.hierarchy else sample.target
        return TrainSample(np.ascontiguousarray(sample.image.transpose(2, 0, 1)), target, 1, tuple(problems))

    def files(self, key: SampleKey) -> list[Path]:
        """Images that the sample of a key is made of."""
        used: list[int] = []
        self._sample(key, [], used)
        return [self.images[index] for index in used]

    def _sample(self, key: SampleKey, problems: list[Problem], used: list[int]) -> LabelledImage | None:
        size_wh = key.width, key.height

        def pick(rng: np.random.Generator) -> LabelledImage:
            return self._pick(rng, size_wh, problems, used)

        try:
            return self.augment(pick, np.random.default_rng((self.seed, key.iteration, key.slot)), size_wh)
        except NoImage:
            return None

    def _pick(
        self, rng: np.random.Generator, size_wh: tuple[int, int], problems: list[Problem], used: list[int]
    ) -> LabelledImage:
        for _ in range(ATTEMPTS):
            index = self.picker(rng, size_wh)
            try:
                image = load(self.images[index], index, self.channels, self.cache)
            except InputError as error:
                problems.append(Problem(str(self.images[index]), str(error)))
                continue
            used.append(index)
            return LabelledImage(image, self._target(str(self.images[index]), problems))
        raise NoImage

    def _target(self, path: str, problems: list[Problem]) -> NDArray[np.float32]:
        found = [label for label in self.labels if label in path]
        if len(found) != 1:
            text = f"{path}: labels in the path are {', '.join(found) or 'none'}, expected exactly one"
            problems.append(Problem(path, text))
        target = target_of(path, self.labels, self.label_smooth_eps)
        return self.hierarchy.with_ancestors(target) if self.hierarchy else target

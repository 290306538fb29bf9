"""Training samples by key: the same key always gives the same sample, in whatever process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from data.annotations import Annotation, Dataset
from data.augment import DetectionAugment, Sample
from data.augment.crop import Image
from data.augment.truth import TruthRows, padded
from data.image import read_image
from data.sampling import Picker
from utils.errors import InputError

ATTEMPTS = 20
"""Images drawn before giving up."""


class SampleKey(NamedTuple):
    """What makes a sample, besides the seed: the iteration, its place in the batch, and the size in pixels."""

    iteration: int
    slot: int
    width: int
    height: int


class Problem(NamedTuple):
    """Why an image or a label could not be used."""

    place: str
    text: str


class TrainSample(NamedTuple):
    """image: uint8 (channels, height, width), RGB; None if no image could be read. box_count: boxes in truth.

    truth: float32 (most, 5), centre x, y, width, height relative to the image and class id, zero rows behind the last
    box; of a classifier (classes,), the wanted value of each class, and box_count 1.
    """

    image: NDArray[np.uint8] | None
    truth: NDArray[np.float32]
    box_count: int
    problems: tuple[Problem, ...]


class ImageStore(Protocol):
    """Images by their number in the split, decoded beforehand."""

    def __getitem__(self, index: int) -> Image | None: ...


class DetectionDataset(torch.utils.data.Dataset[TrainSample]):
    """Random images of a split, augmented. Images are drawn with replacement, as the original draws them.

    Crowd and difficult boxes are left out, as the original's label converters do. An image that cannot be read is
    reported and another one is drawn; labels that cannot be used are reported and left out.
    """

    def __init__(
        self,
        data: Dataset,
        split: str,
        augment: DetectionAugment,
        *,
        seed: int,
        channels: int = 3,
        cache: ImageStore | None = None,
        picker: Picker | None = None,
    ) -> None:
        self.images = data.splits[split]
        if not self.images:
            raise InputError(f"{data.source}: no images in split '{split}'")
        self.read = data.read
        self.augment, self.seed, self.channels, self.cache = augment, seed, channels, cache
        self.picker = picker or Picker(len(self.images))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: SampleKey) -> TrainSample:
        problems: list[Problem] = []
        sample = self._sample(key, problems, [])
        if sample is None:
            return TrainSample(None, padded(np.zeros((0, 5), np.float32), self.augment.most), 0, tuple(problems))
        image = np.ascontiguousarray(sample.image.transpose(2, 0, 1))
        return TrainSample(image, padded(sample.truth, self.augment.most), len(sample.truth), tuple(problems))

    def files(self, key: SampleKey) -> list[Path]:
        """Images that the sample of a key is made of."""
        used: list[int] = []
        self._sample(key, [], used)
        return [self.images[index] for index in used]

    def _sample(self, key: SampleKey, problems: list[Problem], used: list[int]) -> Sample | None:
        size_wh = key.width, key.height

        def pick(rng: np.random.Generator) -> Sample:
            return self._pick(rng, size_wh, problems, used)

        try:
            return self.augment(pick, np.random.default_rng((self.seed, key.iteration, key.slot)), size_wh)
        except NoImage:
            return None

    def _pick(
        self, rng: np.random.Generator, size_wh: tuple[int, int], problems: list[Problem], used: list[int]
    ) -> Sample:
        for _ in range(ATTEMPTS):
            index = self.picker(rng, size_wh)
            try:
                image = load(self.images[index], index, self.channels, self.cache)
            except InputError as error:
                problems.append(Problem(str(self.images[index]), str(error)))
                continue
            used.append(index)
            return Sample(image, self._truth(self.read(self.images[index]), problems))
        raise NoImage

    def _truth(self, labels: Annotation, problems: list[Problem]) -> TruthRows:
        problems.extend(Problem(finding.place, str(finding)) for finding in labels.findings)
        for class_id in np.unique(
            labels.class_ids[(labels.class_ids < 0) | (labels.class_ids >= self.augment.classes)]
        ):
            place = str(labels.label_path or labels.image)
            text = f"{place}: class {class_id}, expected 0 to {self.augment.classes - 1}; the box is left out"
            problems.append(Problem(place, text))
        used = ~(labels.crowd | labels.difficult)
        return np.column_stack([labels.cxcywh_rel[used], labels.class_ids[used]]).astype(np.float32)


def load(path: Path, index: int, channels: int, cache: ImageStore | None) -> Image:
    """The image from the cache, or else from its file. Raises InputError."""
    cached = cache[index] if cache is not None else None
    return cached if cached is not None else read_image(path, channels)


class NoImage(Exception):
    """None of many images drawn could be read."""


def collate(samples: Sequence[TrainSample]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[Problem, ...]]:
    """Images (b, channels, height, width), truth, counts and problems; no images (b = 0) if one sample has none."""
    images = [sample.image for sample in samples if sample.image is not None]
    complete = len(images) == len(samples)
    return (
        torch.from_numpy(np.stack(images)) if complete else torch.empty(0, dtype=torch.uint8),
        torch.from_numpy(np.stack([sample.truth for sample in samples])),
        torch.tensor([sample.box_count for sample in samples]),
        tuple(problem for sample in samples for problem in sample.problems),
    )

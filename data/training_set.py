"""From a data set and what a cfg says to batches for training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data.annotations import Annotation, Dataset
from data.augment import DetectionAugment
from data.augment.classification import ClassificationAugment
from data.augment.extra import ExtraAugment
from data.classification import ClassificationDataset
from data.dataset import DetectionDataset
from data.image_cache import CachePlace, cached
from data.loader import BatchPlan, TrainLoader
from data.sizes import SizeSchedule
from utils.cfg import RawSection
from utils.net_options import AugmentOptions, BatchOptions, ScheduleOptions

SPLIT = "train"


@dataclass(frozen=True, kw_only=True)
class BoxOptions:
    """What the last head with boxes says about training pictures; see BoxSection in models/heads/base.py."""

    classes: int
    jitter: float
    resize: float
    random: float
    most: int


@dataclass(frozen=True, kw_only=True)
class Supply:
    """How batches are made. cache: where decoded pictures are kept. extra: further augmentations.

    rank, world: this process's number and how many share each batch.
    """

    seed: int
    workers: int
    start: int = 0
    pin_memory: bool = False
    cache: CachePlace | None = None
    extra: ExtraAugment | None = None
    rank: int = 0
    world: int = 1


def training_loader(
    dataset: Dataset,
    net: RawSection,
    boxes: BoxOptions | None,
    *,
    size_wh: tuple[int, int],
    channels: int,
    batch: int,
    subdivisions: int,
    letter_box: bool,
    supply: Supply,
) -> TrainLoader:
    """Batches without end from split `train`. net: section [net]; boxes: None for a classifier, whose classes are the names.

    Raises InputError for options that exclude each other.
    """
    batching, schedule = BatchOptions.from_raw(net), ScheduleOptions.from_raw(net)
    sizes = SizeSchedule(
        width=size_wh[0],
        height=size_wh[1],
        mini_batch=batch // subdivisions,
        random=boxes.random if boxes else 0.0,
        resize_step=batching.resize_step,
        dynamic_minibatch=batching.dynamic_minibatch,
        max_batches=schedule.max_batches,
        seed=supply.seed,
    )
    store = cached(dataset.splits[SPLIT], channels, supply.cache) if supply.cache else None
    common = {"seed": supply.seed, "channels": channels, "cache": store}
    augment = AugmentOptions.from_raw(net)
    samples: DetectionDataset | ClassificationDataset
    if boxes is None:
        least, most = batching.min_crop or size_wh[0], batching.max_crop or 2 * size_wh[0]
        crops = ClassificationAugment(options=augment, least=least, most=most)
        smooth = schedule.label_smooth_eps
        images = dataset.splits[SPLIT]
        samples = ClassificationDataset(images, dataset.names, crops, label_smooth_eps=smooth, **common)  # type: ignore[arg-type]
    else:
        maker = DetectionAugment(
            options=augment,
            letter_box=letter_box,
            jitter=boxes.jitter,
            resize=boxes.resize,
            classes=boxes.classes,
            most=boxes.most,
            extra=supply.extra,
        )
        maker.warn()
        samples = DetectionDataset(dataset, SPLIT, maker, **common)  # type: ignore[arg-type]
    plan = BatchPlan(sizes=sizes, subdivisions=subdivisions, rank=supply.rank, world=supply.world)
    return TrainLoader(samples, plan, workers=supply.workers, start=supply.start, pin_memory=supply.pin_memory)


def single_class(dataset: Dataset) -> Dataset:
    """The same data set with one class, "object"."""
    return replace(dataset, names=("object",), read=_SingleClass(dataset.read))


@dataclass(frozen=True)
class _SingleClass:
    read: Callable[[Path], Annotation]

    def __call__(self, image: Path) -> Annotation:
        labels = self.read(image)
        return replace(labels, class_ids=np.zeros_like(labels.class_ids))

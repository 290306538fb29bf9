"""From a data set and what a cfg says to batches for training."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.annotations import Annotation, Dataset
from data.augment import DetectionAugment
from data.augment.classification import ClassificationAugment
from data.augment.extra import ExtraAugment
from data.augment.mix import Mix, mix_of
from data.classification import ClassificationDataset, Hierarchy
from data.dataset import DetectionDataset
from data.image_cache import CachePlace, cached
from data.loader import BatchPlan, Sizes, TrainLoader
from data.multiscale import SizeSchedule
from data.sampling import Picker, Rectangles, RectangleSizes, rectangles
from utils.cfg import RawSection
from utils.errors import InputError
from utils.net_options import AugmentOptions, BatchOptions, ScheduleOptions

logger = logging.getLogger(__name__)

SPLIT = "train"


@dataclass(frozen=True, kw_only=True)
class BoxOptions:
    """What the last head with boxes says about training images; see BoxSection in models/heads/base.py."""

    classes: int
    jitter: float
    resize: float
    random: float
    most: int


@dataclass(frozen=True, eq=False)
class Proportions:
    """What rectangular training needs. sizes_wh: (images, 2), zero where unknown. stride: of the network, in pixels."""

    sizes_wh: NDArray[np.int64]
    stride: int


@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """How batches are made. cache: where decoded images are kept. extra: further augmentations.

    weights: (images,), chance of each, default all alike. proportions: batches of images of similar proportions.
    rank, world: this process's number and how many share each batch.
    """

    seed: int
    workers: int
    start: int = 0
    pin_memory: bool = False
    cache: CachePlace | None = None
    extra: ExtraAugment | None = None
    weights: NDArray[np.float64] | None = None
    proportions: Proportions | None = None
    rank: int = 0
    world: int = 1


def training_loader(
    dataset: Dataset,
    net: RawSection,
    boxes: BoxOptions | None,
    *,
    hierarchy: Hierarchy | None = None,
    size_wh: tuple[int, int],
    channels: int,
    batch: int,
    subdivisions: int,
    letter_box: bool,
    supply: LoaderOptions,
) -> TrainLoader:
    """Batches without end from split `train`. net: section [net]; boxes: None for a classifier, whose classes are the names.
    hierarchy: tree of the classes of a classifier.

    Raises InputError for options that exclude each other, and for channels that no image has.
    """
    if channels not in (1, 3):
        raise InputError(f"[net] channels={channels}: expected 3, or 1 for grey images")
    images = dataset.splits[SPLIT]
    sizes: Sizes = _sizes(net, boxes, size_wh, batch // subdivisions, supply.seed)
    picker = Picker(len(images), supply.weights)
    if supply.proportions is not None:
        _refuse_rectangles(net, boxes, letter_box=letter_box)
        step = math.lcm(int(BatchOptions.from_raw(net).resize_step), supply.proportions.stride)
        groups = rectangles(supply.proportions.sizes_wh, size_wh, step, batch)
        logger.info("batches have %d shapes: %s", len(groups.shapes), _shapes_text(groups))
        picker = Picker(len(images), supply.weights, groups)
        sizes = RectangleSizes(groups.shapes, picker.shares, batch // subdivisions, supply.seed)
    common: dict[str, Any] = {
        "seed": supply.seed,
        "channels": channels,
        "cache": cached(images, channels, supply.cache) if supply.cache else None,
        "picker": picker,
    }
    samples: DetectionDataset | ClassificationDataset
    if boxes is None:
        smooth = ScheduleOptions.from_raw(net).label_smooth_eps
        crops = _crops(net, size_wh)
        samples = ClassificationDataset(
            images, dataset.labels_in_paths, crops, label_smooth_eps=smooth, hierarchy=hierarchy, **common
        )
    else:
        samples = DetectionDataset(dataset, SPLIT, _augment(net, boxes, letter_box, supply.extra), **common)
    plan = BatchPlan(sizes=sizes, subdivisions=subdivisions, rank=supply.rank, world=supply.world)
    return TrainLoader(samples, plan, workers=supply.workers, start=supply.start, pin_memory=supply.pin_memory)


def _sizes(
    net: RawSection, boxes: BoxOptions | None, size_wh: tuple[int, int], mini_batch: int, seed: int
) -> SizeSchedule:
    batching = BatchOptions.from_raw(net)
    return SizeSchedule(
        width=size_wh[0],
        height=size_wh[1],
        mini_batch=mini_batch,
        random=boxes.random if boxes else 0.0,
        resize_step=batching.resize_step,
        dynamic_minibatch=batching.dynamic_minibatch,
        max_batches=ScheduleOptions.from_raw(net).max_batches,
        seed=seed,
    )


def _crops(net: RawSection, size_wh: tuple[int, int]) -> ClassificationAugment:
    batching = BatchOptions.from_raw(net)
    least, most = batching.min_crop or size_wh[0], batching.max_crop or 2 * size_wh[0]
    return ClassificationAugment(options=AugmentOptions.from_raw(net), least=least, most=most)


def _augment(net: RawSection, boxes: BoxOptions, letter_box: bool, extra: ExtraAugment | None) -> DetectionAugment:
    augment = DetectionAugment(
        options=AugmentOptions.from_raw(net),
        letter_box=letter_box,
        jitter=boxes.jitter,
        resize=boxes.resize,
        classes=boxes.classes,
        most=boxes.most,
        extra=extra,
    )
    augment.warn()
    return augment


def _refuse_rectangles(net: RawSection, boxes: BoxOptions | None, *, letter_box: bool) -> None:
    """Raises InputError where the shape of a batch is another key's business."""
    if boxes is None:
        raise InputError("--rect is for networks with boxes, a classifier crops its images to a square")
    if mix_of(AugmentOptions.from_raw(net)) in {Mix.MOSAIC, Mix.CUTMIX_OR_MOSAIC}:
        raise InputError("--rect and [net] mosaic=1 exclude each other: a mosaic of four images has no proportions")
    if boxes.random:
        raise InputError(f"--rect and random={boxes.random:g} exclude each other: both set the size of the input")
    if not letter_box:
        text = (
            "--rect keeps the proportions of images, but evaluation and detection stretch them to the network's input"
        )
        logger.warning("%s; with letter_box=1 in [net] they do not", text)


def _shapes_text(groups: Rectangles) -> str:
    counts = np.bincount(groups.group).tolist()
    return ", ".join(f"{w}x{h} ({n} images)" for (w, h), n in zip(groups.shapes.tolist(), counts, strict=True))


def single_class(dataset: Dataset) -> Dataset:
    """The same data set with one class, "object"."""
    return replace(dataset, names=("object",), path_labels=(), read=_SingleClass(dataset.read))


@dataclass(frozen=True)
class _SingleClass:
    read: Callable[[Path], Annotation]

    def __call__(self, image: Path) -> Annotation:
        labels = self.read(image)
        return replace(labels, class_ids=np.zeros_like(labels.class_ids))

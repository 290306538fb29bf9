"""Training batches from a data set and the keys of a cfg."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.annotations import Annotation, Dataset
from data.augment.albumentations import AlbumentationsAugment
from data.augment.classification import ClassificationAugment
from data.augment.detection import DetectionAugment
from data.augment.mixing import Mixing, mixing_of
from data.dataset import ClassHierarchy, ClassificationDataset, DetectionDataset, TrainingDataset
from data.image_cache import CacheOptions, open_cache
from data.loader import BatchPlan, TrainLoader
from data.sampling import AspectGroups, BatchShapes, ImageSampler, MultiScaleShapes, RectShapes, group_by_aspect
from utils.cfg import RawSection
from utils.errors import InputError
from utils.net_options import AugmentOptions, BatchOptions, ScheduleOptions

logger = logging.getLogger(__name__)

SPLIT = "train"


@dataclass(frozen=True, kw_only=True)
class BoxOptions:
    """Keys of the last head with boxes that apply to training images; see BoxSection in models/heads/base.py."""

    classes: int
    jitter: float
    resize: float
    random: float
    max_boxes: int


@dataclass(frozen=True, eq=False)
class RectOptions:
    """Settings of rectangular training. sizes_wh: (images, 2), zero if unknown. stride: of the network, in pixels."""

    sizes_wh: NDArray[np.int64]
    stride: int


@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """Settings of the training loader.

    start: first iteration.
    cache: cache of decoded images.
    dihedral, albumentations: additional augmentation.
    weights: (images,), probability of each image; default: uniform.
    rect: form batches of images with similar aspect ratios.
    rank, world_size: this process and the number of processes that share each batch.
    """

    seed: int
    workers: int
    start: int = 0
    pin_memory: bool = False
    cache: CacheOptions | None = None
    dihedral: bool = False
    albumentations: AlbumentationsAugment | None = None
    weights: NDArray[np.float64] | None = None
    rect: RectOptions | None = None
    rank: int = 0
    world_size: int = 1


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
    options: LoaderOptions,
    hierarchy: ClassHierarchy | None = None,
) -> TrainLoader:
    """Return a loader of endless batches from split `train`.

    net: section [net].
    boxes: keys of the last head; None for a classifier, which has a class per name.
    hierarchy: tree of a classifier's classes.

    Raises InputError for options that exclude each other and for unsupported channels.
    """
    if channels not in (1, 3):
        raise InputError(f"[net] channels={channels}: expected 3, or 1 for greyscale images")
    images, mini_batch = dataset.splits[SPLIT], batch // subdivisions
    if not images or (boxes is None and not dataset.labels_in_paths):
        raise InputError(f"{dataset.source}: no images in split '{SPLIT}', or no class names")
    batching, schedule = BatchOptions.from_raw(net), ScheduleOptions.from_raw(net)
    shapes: BatchShapes = MultiScaleShapes(
        width=size_wh[0],
        height=size_wh[1],
        mini_batch=mini_batch,
        random=boxes.random if boxes else 0.0,
        resize_step=batching.resize_step,
        dynamic_minibatch=batching.dynamic_minibatch,
        max_batches=schedule.max_batches,
        seed=options.seed,
    )
    sampler = ImageSampler(len(images), options.weights)
    if options.rect is not None:
        _check_rect(net, boxes, letter_box=letter_box)
        step = math.lcm(int(batching.resize_step), options.rect.stride)
        groups = group_by_aspect(options.rect.sizes_wh, size_wh, step, batch)
        logger.info("batches have %d shapes: %s", len(groups.shapes), _shapes_text(groups))
        sampler = ImageSampler(len(images), options.weights, groups)
        shapes = RectShapes(groups.shapes, sampler.shares, mini_batch, options.seed)
    common: dict[str, Any] = {
        "images": images,
        "seed": options.seed,
        "channels": channels,
        "cache": open_cache(images, channels, options.cache) if options.cache else None,
        "sampler": sampler,
    }
    samples: TrainingDataset
    if boxes is None:
        samples = ClassificationDataset(
            augment=ClassificationAugment(
                options=AugmentOptions.from_raw(net),
                min_crop=batching.min_crop or size_wh[0],
                max_crop=batching.max_crop or 2 * size_wh[0],
            ),
            labels=dataset.labels_in_paths,
            label_smooth_eps=schedule.label_smooth_eps,
            hierarchy=hierarchy,
            **common,
        )
    else:
        augment = _detection_augment(net, boxes, letter_box, options)
        samples = DetectionDataset(augment=augment, read=dataset.read, **common)
    plan = BatchPlan(shapes=shapes, subdivisions=subdivisions, rank=options.rank, world_size=options.world_size)
    return TrainLoader(samples, plan, workers=options.workers, start=options.start, pin_memory=options.pin_memory)


def _detection_augment(
    net: RawSection, boxes: BoxOptions, letter_box: bool, loading: LoaderOptions
) -> DetectionAugment:
    augment = DetectionAugment(
        options=AugmentOptions.from_raw(net),
        letter_box=letter_box,
        jitter=boxes.jitter,
        resize=boxes.resize,
        classes=boxes.classes,
        max_boxes=boxes.max_boxes,
        dihedral=loading.dihedral,
        albumentations=loading.albumentations,
    )
    augment.warn()
    return augment


def _check_rect(net: RawSection, boxes: BoxOptions | None, *, letter_box: bool) -> None:
    """Raise InputError if another option determines the shape of the input."""
    if boxes is None:
        raise InputError("--rect is for detectors; a classifier crops its images to a square")
    if mixing_of(AugmentOptions.from_raw(net)) in {Mixing.MOSAIC, Mixing.CUTMIX_OR_MOSAIC}:
        raise InputError("--rect and [net] mosaic=1 cannot be combined: a mosaic of four images has no aspect ratio")
    if boxes.random:
        raise InputError(f"--rect and random={boxes.random:g} cannot be combined: both set the input size")
    if not letter_box:
        text = (
            "--rect keeps the aspect ratio of images, but evaluation and detection stretch them to the network's input"
        )
        logger.warning("%s; set letter_box=1 in [net] to keep it there too", text)


def _shapes_text(groups: AspectGroups) -> str:
    counts = np.bincount(groups.group).tolist()
    return ", ".join(f"{w}x{h} ({n} images)" for (w, h), n in zip(groups.shapes.tolist(), counts, strict=True))


def single_class(dataset: Dataset) -> Dataset:
    """Return the data set with a single class, "object"."""
    return replace(dataset, names=("object",), path_labels=(), read=partial(_read_as_one_class, dataset.read))


def _read_as_one_class(read: Callable[[Path], Annotation], image: Path) -> Annotation:
    labels = read(image)
    return replace(labels, class_ids=np.zeros_like(labels.class_ids))

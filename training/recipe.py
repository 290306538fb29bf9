"""`--recipe modern`: settings that suit small data sets, and advice from the data. The original's rules stay the default."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from data.anchors import anchor_fit, compute_anchors, shape_iou
from data.doctor import DatasetReport
from models.fit import anchor_heads, anchors_in_pixels
from models.plan import Plan, make_plan
from training.options import TrainOptions
from training.prepare import training_length
from utils.cfg import Cfg
from utils.errors import InputError
from utils.net_options import ScheduleOptions

_BATCH, _RATE = 8, 0.002
_EPOCHS, _LEAST_IMAGES = 120, 24_000  # length of a run without --iterations and --epochs
_BURN_IN, _SETTLING, _LONGEST_BURN_IN = 0.05, 100, 0.2  # part of the run, but at least so many iterations; at most
_AVERAGED = 0.05  # part of the run that the moving average of the weights spans
_BN_MOMENTUM = 0.1
_JITTER = "0.1"  # part of each side that random crops cut off or add
_SHOWN = 8  # classes described in the advice, the rarest first
_FEW, _UNBALANCED = 100, 10  # objects of a class; objects of the most frequent class for one of the rarest
_FIT_GAIN = 0.05  # of mean IoU, from which other anchors are worth it
_LEAST_PASSES, _MOST_EPOCHS = 500, 300
HEAD_KEYS = {
    "iou_loss": "ciou",
    "iou_normalizer": "0.07",
    "iou_thresh": "0.213",
    "max_delta": "5",
}
"""The box loss: CIoU, several anchors for an object."""


def modern(options: TrainOptions, plan: Plan, images: int) -> TrainOptions:
    """The flags with the recipe's values where the user gave none. images: number of training images.

    Raises InputError for a network without anchors.
    """
    heads = anchor_heads(plan)
    if not heads:
        raise InputError(f"{plan.cfg.path}: --recipe modern works only for detectors with anchors, the cfg has none")
    batch = options.batch_size or _BATCH
    given = dataclasses.replace(options, batch_size=batch)
    length = training_length(given, plan, images) or _own_length(batch, images)
    values: dict[str, object] = {
        "batch_size": batch,
        "subdivisions": None if options.batch_size else 1,
        "iterations": length,
        "anchors": "auto",
        "cos_lr": True,
        "average": round(max(0.9, 1 - 1 / max(1.0, _AVERAGED * length)), 4),
        "bn_momentum": _BN_MOMENTUM,
    }
    chosen = {key: value for key, value in values.items() if getattr(options, key) is None}
    keys = set.intersection(*(set(step.section.keys()) for step in heads))
    burn_in = max(_BURN_IN * length, min(_SETTLING, _LONGEST_BURN_IN * length))
    words = [f"learning_rate={_RATE}", f"burn_in={max(1, round(burn_in))}"]
    words += ["ema_alpha=0"] if ScheduleOptions.from_raw(plan.cfg.sections[0]).ema_alpha else []
    words += [f"{key}={value}" for key, value in (HEAD_KEYS | {"jitter": _JITTER}).items() if key in keys]
    return dataclasses.replace(options, overrides=(*words, *options.overrides), **chosen)  # type: ignore[arg-type]


def _own_length(batch: int, images: int) -> int:
    """Iterations for a data set of so many images."""
    return -(-max(_EPOCHS * images, _LEAST_IMAGES) // batch)


def describe(options: TrainOptions, defaults: TrainOptions, cfg: Cfg, images: int) -> str:
    """A run before it starts: the flags that are not the defaults, and the keys of the fitted cfg that concern training."""
    plan, left_out = make_plan(cfg), ("cfg", "data", "plan", "recipe")
    given = {key: value for key, value in options.plain().items() if value != defaults.plain()[key]}
    lines = ["flags:", *(f"  {key}: {json.dumps(value)}" for key, value in given.items() if key not in left_out)]
    for index in [0, *(step.index + 1 for step in plan.heads)]:
        section = cfg.sections[index]
        lines += [f"[{section.name}]", *(f"  {entry.key}={entry.value}" for entry in section.entries)]
    seen = ScheduleOptions.from_raw(cfg.sections[0]).max_batches * plan.net.batch
    return "\n".join([*lines, f"{seen:,} images seen, each of {images} images {seen / images:.0f} times"])


def advice(plan: Plan, checked: DatasetReport, bn_momentum: float | None) -> Iterator[str]:
    """What to expect from a training, and settings worth trying. plan: of the fitted cfg. bn_momentum: the flag's value."""
    heads = anchor_heads(plan)
    if not heads or not checked.labels:
        return
    size_wh = np.array([plan.input.width, plan.input.height])
    sizes = checked.cxcywh_rel[:, 2:] * size_wh
    stride = min(plan.input.width // step.shape.width for step in heads)
    yield f"objects at an input of {plan.input.width}x{plan.input.height}, finest stride {stride}:"
    image_of = np.repeat(np.arange(checked.images), checked.per_image)
    counts = checked.class_counts
    present = [c for c in np.argsort(counts, kind="stable") if counts[c]]
    smallest = None
    for c in present:
        own = np.median(sizes[checked.class_ids == c], axis=0)
        if smallest is None or own.min() < smallest[1]:
            smallest = (checked.names[c], float(own.min()))
        if c in present[:_SHOWN]:
            images = len(np.unique(image_of[checked.class_ids == c]))
            where = f"{images} image{'s' * (images > 1)}"
            yield f"  {checked.names[c]}: {counts[c]} in {where}, median {own[0]:.0f}x{own[1]:.0f} pixels"
    if len(present) > _SHOWN:
        yield f"  and {len(present) - _SHOWN} classes with more objects"
    yield from _advice_on_anchors(plan, sizes, checked)
    assert smallest is not None
    if smallest[1] < stride:
        yield f"  {smallest[0]} is smaller than a cell of the finest grid: expect misses; try {_larger(plan, stride / smallest[1])}"
    few = [checked.names[c] for c in present if counts[c] < _FEW]
    missing = [name for name, count in zip(checked.names, counts, strict=True) if not count]
    if missing:
        yield f"  no objects of {_listed(missing)}: the network cannot learn to find them"
    if few:
        yield f"  fewer than {_FEW} objects of {_listed(few)}: expect low recall; start from trained --weights or label more"
    if len(present) > 1 and counts[present[-1]] > _UNBALANCED * counts[present[0]]:
        ratio = counts[present[-1]] / counts[present[0]]
        names = checked.names[present[-1]], checked.names[present[0]]
        yield f"  {ratio:.0f} times as many {names[0]} as {names[1]}: --class-balanced draws rare classes more often"
    yield from _advice_on_length(plan, checked.images)
    if bn_momentum is None and _passes(plan) < _LEAST_PASSES:
        yield "  too few forward passes for batch-norm statistics to settle: --bn-momentum 0.1"


def _advice_on_anchors(plan: Plan, sizes: NDArray[np.float64], checked: DatasetReport) -> Iterator[str]:
    """sizes: of the objects (n, 2), in pixels of the network's input."""
    heads, anchors = anchor_heads(plan), np.array(anchors_in_pixels(plan))
    used = {index for step in heads for index in step.section.indices}  # type: ignore[attr-defined]
    best = shape_iou(sizes, anchors).argmax(axis=1)
    unused = ~np.isin(best, sorted(used))
    if unused.any():
        counts = np.bincount(checked.class_ids[unused], minlength=len(checked.names))
        name, share = checked.names[counts.argmax()], counts.max() / checked.class_counts[counts.argmax()]
        text = (
            f"{unused.mean():.0%} of the objects ({share:.0%} of {name}) have the shape of an anchor that no head uses"
        )
        yield f"  {text}, so they are not trained: --anchors auto fits the anchors to the data"
        return
    if len(anchors) > len(np.unique(sizes, axis=0)):
        return
    now, possible = (anchor_fit(sizes, each).mean_iou for each in (anchors, compute_anchors(sizes, len(anchors))))
    if possible - now > _FIT_GAIN:
        text = f"anchors fit the objects with a mean IoU of {now:.0%}, computed ones with {possible:.0%}"
        yield f"  {text}: --anchors auto"


def _advice_on_length(plan: Plan, images: int) -> Iterator[str]:
    schedule = ScheduleOptions.from_raw(plan.cfg.sections[0])
    length, batch = schedule.max_batches, max(1, plan.net.batch)
    epochs = length * batch / images
    shown = f"  {length} iterations show each image {epochs:.{0 if epochs >= 10 else 1}f} times"
    wanted = _own_length(batch, images)
    if length < 0.9 * wanted:
        yield f"{shown}: expect more from --iterations {wanted}"
    elif epochs > _MOST_EPOCHS:
        yield f"{shown}: --iterations {wanted} may be enough"


def _passes(plan: Plan) -> int:
    """Forward passes of a training."""
    return ScheduleOptions.from_raw(plan.cfg.sections[0]).max_batches * plan.net.subdivisions


def _larger(plan: Plan, factor: float) -> str:
    """The flag for an input that is larger by at least `factor`, at most by 2, in steps of 32 pixels."""
    width, height = (int(np.ceil(side * min(factor, 2.0) / 32) * 32) for side in (plan.input.width, plan.input.height))
    cost = width * height / (plan.input.width * plan.input.height)
    return f"--img-size {width}{'' if width == height else f' {height}'}, which takes {cost:.1f} times as long"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more classes" if more > 0 else "")

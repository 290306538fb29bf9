"""Anchors for a data set, without a training (--task anchors; detector.c calc_anchors)."""

from __future__ import annotations

import numpy as np

from data.anchors import anchor_fit, compute_anchors
from data.sources import open_data
from evaluation.doctor import checked_split
from evaluation.options import EvaluationOptions
from models.fit import anchor_heads, anchors_in_pixels
from models.plan import read_plan
from utils.cli import EXIT_OK, as_typed, input_size
from utils.errors import InputError

_COUNT = 9
_WORTH = 0.01  # of mean IoU or recall


def anchors(settings: EvaluationOptions) -> int:
    """Print anchors for the boxes of a split (train) as the line of a cfg; with --cfg, compare them with its own.

    Raises InputError.
    """
    size_wh, own = input_size(settings.img_size), None
    if settings.cfg is not None:
        width, height = size_wh or (None, None)
        plan = read_plan(settings.cfg, width=width, height=height)
        size_wh = (plan.input.width, plan.input.height)
        own = anchors_in_pixels(plan) if anchor_heads(plan) else None
    if size_wh is None:
        raise InputError("--task anchors: requires --img-size or --cfg, for the size of the network's input")
    split = settings.split or "train"
    dataset = open_data(settings.data, split, names=settings.names)
    checked = checked_split(dataset, split, settings)
    checked.require_labels(dataset.source)
    sizes = checked.cxcywh_rel[:, 2:] * np.array(size_wh)
    count = settings.count or (len(own) if own else _COUNT)
    computed = np.round(compute_anchors(sizes, count), 0 if min(size_wh) > 32 else 4).clip(min=1e-4)
    fit = anchor_fit(sizes, computed)
    print(f"anchors = {', '.join(f'{width:g},{height:g}' for width, height in computed.tolist())}")
    print(f"{count} anchor{'s' * (count > 1)} for an input of {size_wh[0]}x{size_wh[1]}: {fit}")
    if own:
        before = anchor_fit(sizes, own)
        print(f"the {len(own)} anchors of {settings.cfg}: {before}")
        if fit.mean_iou - before.mean_iou < _WORTH and fit.recall - before.recall < _WORTH:
            print("The new anchors fit hardly better: keep those of the cfg, which the weights were trained with.")
        else:
            print(f"To train with the new anchors: {as_typed('train.py')} --anchors {count}")
    return EXIT_OK

"""Tasks without a network: the data set check, before an evaluation or alone (--task doctor), and anchors (--task anchors)."""

from __future__ import annotations

import logging
import sys
from functools import cache
from pathlib import Path

import numpy as np

from data.anchors import anchor_fit, compute_anchors
from data.annotations import Dataset
from data.doctor import DatasetReport, check_dataset, full_text, report
from data.evaluation_set import EvaluationSet, make_evaluation_set
from data.sources import open_data
from evaluation.options import EvaluationOptions
from evaluation.plots import plot_labels
from inference.predictor import Model
from models.fit import anchor_heads, anchors_in_pixels
from models.plan import read_plan
from utils.cli import as_typed, input_size
from utils.errors import InputError
from utils.files import run_folder, write_text
from utils.packages import is_installed

logger = logging.getLogger(__name__)

_ANCHORS = 9
_WORTH = 0.01  # gain in mean IoU or recall that makes new anchors worthwhile


def doctor(settings: EvaluationOptions) -> None:
    """Check every split, without a network."""
    dataset = open_data(settings.data, settings.split, names=settings.names)
    found = [checked_split(dataset, split, settings) for split in dataset.splits]
    folder = run_folder(settings.project, settings.name, exist_ok=settings.exist_ok)
    for checked in found:
        save_report(folder, checked, settings)
    print(f"Results saved to {folder}")


def checked_set(settings: EvaluationOptions, model: Model) -> tuple[EvaluationSet, DatasetReport]:
    """Open and check the evaluation set. Raises InputError if there are no labels to measure against."""
    split = settings.split or "val"
    dataset = open_data(settings.data, split, names=settings.names)
    cfg = model.network.plan.cfg.path
    evaluation_set = make_evaluation_set(dataset, split, model.classes, cfg, single_class=settings.single_cls)
    checked = checked_split(dataset, split, settings)
    if dataset.labelled:
        checked.require_labels(dataset.source)
    elif not settings.save_json:
        raise InputError(f"{dataset.source}: has no annotations; add --save-json to write COCO results for submission")
    return evaluation_set, checked


def save_report(folder: Path, found: DatasetReport, settings: EvaluationOptions) -> None:
    write_text(folder / f"doctor_{found.split}.txt", full_text(found))
    if plots_wanted(settings):
        plot_labels(folder / f"labels_{found.split}.png", found)


def plots_wanted(settings: EvaluationOptions) -> bool:
    """Return whether to draw plots; warn if matplotlib is missing."""
    if settings.no_plots:
        return False
    if not is_installed("matplotlib"):
        _warn_no_plots()
        return False
    return True


@cache
def _warn_no_plots() -> None:
    logger.warning("no plots: they need matplotlib (pip install matplotlib)")


def checked_split(dataset: Dataset, split: str, settings: EvaluationOptions) -> DatasetReport:
    """Check a split and print the report."""
    found = check_dataset(dataset, split, workers=settings.workers)
    print(report(found, examples=sys.maxsize if settings.verbose else 3))
    return found


def anchors(settings: EvaluationOptions) -> None:
    """Print anchors for the boxes of a split (default: train) as a cfg line (detector.c calc_anchors).

    With --cfg, compare them with those of the cfg. Raises InputError.
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
    count = settings.count or (len(own) if own else _ANCHORS)
    computed = np.round(compute_anchors(sizes, count), 0 if min(size_wh) > 32 else 4).clip(min=1e-4)
    fit = anchor_fit(sizes, computed)
    print(f"anchors = {', '.join(f'{width:g},{height:g}' for width, height in computed.tolist())}")
    print(f"{count} anchor{'s' * (count > 1)} for an input of {size_wh[0]}x{size_wh[1]}: {fit}")
    if own:
        before = anchor_fit(sizes, own)
        print(f"the {len(own)} anchors of {settings.cfg}: {before}")
        if fit.mean_iou - before.mean_iou < _WORTH and fit.recall - before.recall < _WORTH:
            print("The new anchors are hardly better: keep those of the cfg, which the weights were trained with.")
        else:
            print(f"To train with the new anchors: {as_typed('train.py')} --anchors {count}")

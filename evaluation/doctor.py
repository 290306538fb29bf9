"""The data set check: before an evaluation, or alone (--task doctor)."""

from __future__ import annotations

import logging
import sys
from functools import cache
from pathlib import Path

from data.annotations import Dataset
from data.doctor import DatasetReport, check_dataset, full_text, report
from data.evaluation_set import EvaluationSet, make_evaluation_set
from data.sources import open_data
from evaluation.options import EvaluationOptions
from evaluation.plots import plot_labels
from inference.predictor import Model
from utils.cli import EXIT_OK
from utils.errors import InputError
from utils.files import run_folder, write_text
from utils.packages import is_installed

logger = logging.getLogger(__name__)


def doctor(settings: EvaluationOptions) -> int:
    """Check every split, without a network."""
    dataset = open_data(settings.data, settings.split, names=settings.names)
    found = [checked_split(dataset, split, settings) for split in dataset.splits]
    folder = run_folder(settings.project, settings.name, exist_ok=settings.exist_ok)
    for checked in found:
        save_report(folder, checked, settings)
    print(f"Results saved to {folder}")
    return EXIT_OK


def checked_set(settings: EvaluationOptions, model: Model) -> tuple[EvaluationSet, DatasetReport]:
    """The images to measure on, checked. Raises InputError: without labels there is nothing to measure."""
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
    """Whether to draw; matplotlib may be missing."""
    if settings.no_plots:
        return False
    if not is_installed("matplotlib"):
        _say_no_plots()
        return False
    return True


@cache
def _say_no_plots() -> None:
    logger.warning("no plots: they need matplotlib (pip install matplotlib)")


def checked_split(dataset: Dataset, split: str, settings: EvaluationOptions) -> DatasetReport:
    """The check of a split, printed."""
    found = check_dataset(dataset, split, workers=settings.workers)
    print(report(found, examples=sys.maxsize if settings.verbose else 3))
    return found

"""A data set, looked over before anything is measured on it, or for its own sake."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path

from data.annotations import Dataset
from data.doctor import DatasetReport, check_dataset, full_text, report
from data.evaluation_set import EvaluationSet, make_evaluation_set
from data.sources import open_data
from evaluation.options import EvaluationOptions
from evaluation.plots import plot_labels
from inference.predictor import Predictor
from utils.cli import EXIT_OK
from utils.errors import InputError
from utils.files import run_folder, write_text

logger = logging.getLogger(__name__)


def doctor(settings: EvaluationOptions) -> int:
    """Look every split over, without a network."""
    dataset = open_data(settings.data, settings.split, names=settings.names)
    found = [_diagnose(dataset, split, settings) for split in dataset.splits]
    folder = run_folder(settings.project, settings.name, exist_ok=settings.exist_ok)
    for diagnosis in found:
        save_diagnosis(folder, diagnosis, settings)
    print(f"Results saved to {folder}")
    return EXIT_OK


def examined(settings: EvaluationOptions, predictor: Predictor) -> tuple[EvaluationSet, DatasetReport]:
    """The images to measure on, looked over. Raises InputError: without labels there is nothing to measure."""
    split = settings.split or "val"
    dataset = open_data(settings.data, split, names=settings.names)
    model = settings.cfg or settings.weights
    assert model is not None
    exam = make_evaluation_set(dataset, split, predictor.detector.classes, model, single_class=settings.single_cls)
    diagnosis = _diagnose(dataset, split, settings)
    if not diagnosis.labels:
        example = next((f": {finding}" for finding in diagnosis.findings if finding.kind == "labels missing"), "")
        raise InputError(f"{settings.data}: no labels to measure against{example}")
    return exam, diagnosis


def save_diagnosis(folder: Path, found: DatasetReport, settings: EvaluationOptions) -> None:
    write_text(folder / f"doctor_{found.split}.txt", full_text(found))
    if plots_wanted(settings):
        path = folder / f"labels_{found.split}.png"
        plot_labels(path, found.names, found.class_counts, found.cxcywh_rel, found.sizes_wh, found.per_image)


def plots_wanted(settings: EvaluationOptions) -> bool:
    """Whether to draw; what they are drawn with may be absent."""
    if settings.no_plots:
        return False
    if importlib.util.find_spec("matplotlib") is None:
        logger.warning("no plots: they need matplotlib (pip install matplotlib)")
        return False
    return True


def _diagnose(dataset: Dataset, split: str, settings: EvaluationOptions) -> DatasetReport:
    found = check_dataset(dataset, split, workers=settings.workers)
    print(report(found, examples=sys.maxsize if settings.verbose else 3))
    return found

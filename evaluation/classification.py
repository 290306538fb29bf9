"""Accuracy and speed of a classifier (classifier.c validate_classifier_single)."""

from __future__ import annotations

import json
from pathlib import Path

from tqdm import tqdm

from data.evaluation_set import ClassificationSet, ImageLoader, make_classification_set
from data.sources import open_data
from evaluation.doctor import plots_wanted
from evaluation.metrics.accuracy import Accuracy
from evaluation.options import EvaluationOptions
from evaluation.plots import plot_confusion
from evaluation.run import ClassPass, by, classify, outcome
from inference.classifier import Classifier
from utils.files import run_folder, write_text


def measure_classes(settings: EvaluationOptions, classifier: Classifier) -> int:
    """Measure how often the best class, and the best few, are right."""
    split = settings.split or "val"
    model = settings.cfg or settings.weights
    assert model is not None
    dataset = open_data(settings.data, split, names=settings.names)
    exam = make_classification_set(dataset, split, classifier.classes, model)
    folder = run_folder(settings.project, settings.name, exist_ok=settings.exist_ok)
    found = _run(settings, classifier, exam)
    truth = exam.classes_of(found.order)
    accuracy = Accuracy.of(found.probabilities(classifier.classes), truth, exam.names, exam.top)
    speed = 1000 * found.network / max(1, len(found.order))
    print(_text(accuracy, settings))
    print(f"Speed: network {speed:.1f} ms an image of {by(classifier.size_wh)}")
    _save(folder, settings, accuracy, exam, found)
    print(f"Results saved to {folder}")
    return outcome(exam.images, found)


def _run(settings: EvaluationOptions, classifier: Classifier, exam: ClassificationSet) -> ClassPass:
    found = ClassPass()
    loader = ImageLoader(
        exam.images,
        classifier.size_wh,
        channels=classifier.network.plan.input.channels,
        batch_size=settings.batch_size,
        workers=settings.workers,
        kernel=settings.resize,
        centre=True,
    )

    try:
        with tqdm(total=len(exam.images), unit="img", desc=by(classifier.size_wh)) as bar:
            for count in classify(classifier.leaf_probabilities, loader, found):
                bar.update(count)
    except KeyboardInterrupt:
        found.interrupted = True
    return found


def _text(accuracy: Accuracy, settings: EvaluationOptions) -> str:
    if settings.print == "darknet":
        last = len(accuracy.ranks) - 1
        return f"{last}: top 1: {accuracy.top(1):f}, top {accuracy.k}: {accuracy.top(accuracy.k):f}"
    return accuracy.table()


def _save(
    folder: Path, settings: EvaluationOptions, accuracy: Accuracy, exam: ClassificationSet, found: ClassPass
) -> None:
    facts = {key: getattr(settings, key) for key in ("cfg", "weights", "data", "split")}
    unreadable = {str(exam.images[i]): text for i, text in sorted(found.failures.items())}
    text = json.dumps({**facts, "unreadable": unreadable, **accuracy.to_json()}, indent=1)
    write_text(folder / "metrics.json", text + "\n")
    rows = zip(found.order, accuracy.predicted.tolist(), strict=True)
    lines = [f"{exam.images[i]}\t{exam.names[best]}\t{found.found[i][best]:.6f}\n" for i, best in rows]
    write_text(folder / "predictions.tsv", "".join(lines))
    if plots_wanted(settings):
        plot_confusion(folder / "confusion_matrix.png", accuracy.matrix(), exam.names)

"""`classifier predict`, `classifier valid`, `classifier valid10` and `classify`: classes of images (classifier.c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from darknet_cli.detect import prompted, report_bad_image
from darknet_cli.grammar import Words
from darknet_cli.network import open_printed, option, stderr, stdout
from darknet_cli.objects import predict as predict_frame
from data.dataset import class_of_path
from data.formats.darknet import read_data, read_list, read_names
from data.frames import Frame
from data.image import read_image
from evaluation.metrics.accuracy import ranks
from evaluation.run import Predictions, predict_images, require_complete
from inference.predictor import Classifier, NmsOptions, TenCropClassifier
from inference.results import best_classes
from utils.errors import InputError, RunError


def classify(words: Words) -> None:
    """`classify CFG WEIGHTS [IMAGE]`: `classifier predict` with cfg/imagenet1k.data and the five best classes."""
    flags = {**words.flags, "-t": 5}
    predict(Words(("classifier", "predict", "cfg/imagenet1k.data", *words.words[1:]), flags))


def _opened(words: Words, *, as_training: bool = False) -> tuple[Classifier, Mapping[str, str]]:
    options = read_data(words.at(2, "the .data file"))
    batch = None if as_training else 1
    model = open_printed(words, batch=batch, train=as_training)
    if not isinstance(model, Classifier):
        raise InputError(f"{words.words[3]}: is a detector, expected a classifier")
    return model, options


def predict(words: Words) -> None:
    """`classifier predict DATA CFG WEIGHTS [IMAGE] [-t N]` (predict_classifier)."""
    model, options = _opened(words)
    classes = int(option(options, "classes", "2"))
    stdout(f" classes = {classes}, output in cfg = {model.classes} \n")
    if classes != model.classes:
        stdout(
            f"\n Error: num of filters = {model.classes} in the last conv-layer in cfg-file doesn't match to "
            f"classes = {classes} in data-file \n"
        )
        raise RunError(f"{words.words[2]}: classes={classes}, but {words.words[3]} has {model.classes}")
    names = read_names(options.get("names") or option(options, "labels", "data/labels.list"))
    model.names = names
    top = min(words["-t"] or int(options.get("top", "1")), classes)
    image, unreadable = words.get(5), 0
    for path in [image] if image else prompted():
        try:
            frame = Frame(image=read_image(path), path=path)
        except InputError as error:
            unreadable += 1
            report_bad_image(path, error)
            continue
        stdout("{} {}\n".format(*model.size_wh))
        probabilities, milliseconds = predict_frame(model, frame, NmsOptions())
        stdout(f"{path}: Predicted in {milliseconds:f} milli-seconds.\n")
        for class_id in best_classes(probabilities, top):
            if model.tree is None:
                stdout(f"{names[class_id]}: {probabilities[class_id]:f}\n")
                continue
            parent = model.tree.parents[class_id]
            above = names[parent] if parent >= 0 else "Root"
            stdout(f"{class_id}, {names[class_id]}: {probabilities[class_id]:f}, parent: {above} \n")
    if unreadable:
        raise RunError(f"{unreadable} images could not be read; bad.list names them")


def valid(words: Words) -> None:
    """`classifier valid DATA CFG WEIGHTS` (validate_classifier_single)."""
    model, options = _opened(words)
    stdout(" TOP calculation...\n")
    images = read_list(Path(option(options, "valid", "data/train.list")))
    predictions, _ = measured_accuracy(model, images, options, "\n{}")
    stderr("")
    require_complete(images, predictions)


def valid10(words: Words) -> None:
    """`classifier valid10 DATA CFG WEIGHTS` (validate_classifier_10): the sum over ten crops of each image."""
    model, options = _opened(words, as_training=True)
    images = read_list(Path(option(options, "valid", "data/train.list")))
    ten_crops = TenCropClassifier(model.network, model.device, names=model.names)
    predictions, _ = measured_accuracy(ten_crops, images, options, "{}\n")
    require_complete(images, predictions)


def measured_accuracy(
    model: Classifier, images: Sequence[Path], options: Mapping[str, str], form: str
) -> tuple[Predictions, float]:
    """Return predictions and top-k accuracy. form: format of the line printed after each image with the accuracy so far."""
    labels = read_names(option(options, "labels", "data/labels.list"))
    top = min(int(options.get("top", "1")), len(labels))
    predictions = predict_images(model, images, batch_size=1)
    (found,) = predictions.found.values()
    probabilities = np.array(found, np.float32).reshape(-1, model.classes)
    class_ids = np.array([class_of_path(str(images[index]), labels) for index in predictions.indices], np.int64)
    places = ranks(probabilities, class_ids)
    first, several = (np.cumsum(places < count) for count in (1, top))
    for number, (index, one, many) in enumerate(zip(predictions.indices, first, several, strict=True), start=1):
        stdout(form.format(f"{index}: top 1: {one / number:f}, top {top}: {many / number:f}"))
    for path, reason in predictions.unreadable.items():
        report_bad_image(path, InputError(reason))
    return predictions, float((places < top).mean()) if len(places) else 0.0

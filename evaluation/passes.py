"""One pass of a network over pictures: what it needs, what it finds, how it ended."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from data.picture_loader import PictureLoader
from engine.classify import ClassPass
from engine.evaluate import Pass, evaluate
from engine.metrics.darknet import SCORE_THRESH
from evaluation.settings import Settings
from models.backends.choice import Run, open_model, open_predictor
from models.classifier import Classifier
from models.detector import Selection
from models.formats.files import Reading
from models.predictor import Predictor
from utils.cli import EXIT_OK
from utils.device import select_device
from utils.errors import InputError, RunError

logger = logging.getLogger(__name__)


def make_predictor(settings: Settings, size: Sequence[int]) -> Predictor:
    """The network at an input size: nothing (the cfg's), a side, or width and height. Raises InputError if it has no boxes."""
    return open_predictor(settings.weights, _run(settings, size)).predictor


def make_model(settings: Settings, size: Sequence[int]) -> Predictor | Classifier:
    """The same for a network with boxes or a classifier."""
    return open_model(settings.weights, _run(settings, size)).model


def _run(settings: Settings, size: Sequence[int]) -> Run:
    device = select_device(settings.device)
    width, height = (size[0], size[-1]) if size else (None, None)
    if settings.weights is None:
        logger.warning("no --weights: the network is random")
    if settings.half and device.type == "cpu":
        raise InputError("--half: 16-bit floats are for a GPU, this run is on the cpu")
    reading = Reading(
        cfg=settings.cfg,
        device=device,
        width=width,
        height=height,
        ema=settings.ema,
        trust_pickle=settings.trust_pickle,
    )
    return Run(
        backend=settings.backend,
        reading=reading,
        half=settings.half,
        mirrored=settings.augment,
        single=settings.single_cls,
    )


def run_pass(settings: Settings, predictor: Predictor, images: Sequence[Path], confidences: Sequence[float]) -> Pass:
    """Everything found in the pictures, once for each confidence; Ctrl-C ends it early."""
    found = Pass()
    boxes = [predictor.boxes(_selection(settings, conf)) for conf in confidences]
    loader = _loader(settings, predictor, images)
    steps = evaluate(predictor.forward, boxes, loader, found, synchronize=predictor.wait)
    try:
        with tqdm(total=len(images), unit="img", desc=by(predictor.size_wh)) as bar:
            for count in steps:
                bar.update(count)
    except KeyboardInterrupt:
        found.interrupted = True
    return found


def outcome(images: Sequence[Path], found: Pass | ClassPass) -> int:
    """The exit code of a run. Raises KeyboardInterrupt if it was ended early, RunError if pictures could not be read."""
    if found.interrupted:
        print(f"{len(found.order)} of {len(images)} pictures were measured", file=sys.stderr)
        raise KeyboardInterrupt
    if found.failures:
        first = found.failures[min(found.failures)]
        raise RunError(
            f"{len(found.failures)} of {len(images)} pictures could not be read, the results are those of the others; "
            f"the first: {first}"
        )
    return EXIT_OK


def speed_text(milliseconds: dict[str, float]) -> str:
    return ", ".join(f"{what.replace('_', ' ')} {value:.1f} ms" for what, value in milliseconds.items())


def by(size_wh: Sequence[int]) -> str:
    return f"{size_wh[0]}x{size_wh[1]}"


def _selection(settings: Settings, conf: float) -> Selection:
    return Selection(conf=conf, iou=settings.iou_thres, agnostic=settings.single_cls, list_above=SCORE_THRESH)


def _loader(settings: Settings, predictor: Predictor, images: Sequence[Path]) -> PictureLoader:
    plan = predictor.network.plan
    return PictureLoader(
        images,
        predictor.size_wh,
        letter_box=plan.net.letter_box if settings.letter_box is None else bool(settings.letter_box),
        channels=plan.input.channels,
        batch_size=settings.batch_size,
        workers=settings.workers,
        kernel=settings.resize,
    )

"""The flags of test.py, and the model they select."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from evaluation.metrics.darknet import CONF_THRESH, NMS_THRESH, SCORE_THRESH
from inference.model import ModelFlags
from inference.predictor import Model
from utils.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(ModelFlags):
    """The flags of test.py.

    img_size: empty (the cfg's), a side, or width and height; `study` accepts several sides.
    conf_thres: empty (the default) or one value; `study` accepts several.
    iou_thres: None: the threshold of each protocol.
    pr_conf: None: CONF_THRESH.
    letter_box: None: as set in the cfg.
    print: "table" or "darknet".
    """

    data: str
    split: str | None
    task: str
    batch_size: int
    conf_thres: tuple[float, ...]
    iou_thres: float | None
    match_iou: float
    pr_conf: float | None
    count: int | None
    letter_box: int | None
    resize: str
    points: int
    print: str
    save_json: bool
    save_voc: bool
    save_txt: bool
    save_conf: bool
    no_plots: bool
    single_cls: bool
    augment: bool
    ten_crop: bool
    verbose: bool
    workers: int
    project: str
    name: str
    exist_ok: bool


def make_model(settings: EvaluationOptions, side: int | None = None) -> Model:
    """Open the model at the size of --img-size or with a square input of `side` pixels. Raises InputError."""
    if settings.weights is None:
        logger.warning("no --weights: the network has random weights")
    return (settings if side is None else replace(settings, img_size=(side,))).open()


def one_confidence(settings: EvaluationOptions) -> float:
    """Return the only confidence threshold; warn if the numbers will differ from the original's. Raises InputError."""
    if len(settings.conf_thres) > 1:
        raise InputError(f"--conf-thres: found {len(settings.conf_thres)} values, expected one (study takes several)")
    confidence = settings.conf_thres[0] if settings.conf_thres else 0.001
    if confidence > SCORE_THRESH:
        logger.warning("--conf-thres %g: the original's mAP starts at %g", confidence, SCORE_THRESH)
    if settings.iou_thres not in (None, NMS_THRESH):
        logger.warning(
            "--iou-thres %g: the original's mAP is defined with NMS at %g; its -iou_thresh is --match-iou here",
            settings.iou_thres,
            NMS_THRESH,
        )
    return confidence


def counted_confidence(settings: EvaluationOptions) -> float:
    """Return the confidence threshold of precision, recall and F1. Raises InputError if it is below that of detections."""
    lowest = settings.conf_thres[0] if settings.conf_thres else 0.0
    if settings.pr_conf is None:
        return max(CONF_THRESH, lowest)
    if settings.pr_conf < lowest:
        raise InputError(f"--pr-conf {settings.pr_conf:g}: is below --conf-thres {lowest:g}, expected at least that")
    return settings.pr_conf

"""Before the first update: the data set, the cfg fitted to it, and the weights to begin with."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.anchors import anchor_fit, anchor_masks, compute_anchors
from data.annotations import Dataset
from data.doctor import DatasetReport, check_dataset, report
from data.scenes import make_scenes
from data.sources import open_data
from data.training_set import single_class
from models.fit import anchor_heads, anchors_in_pixels, classes_of, fit_anchors, fit_classes
from models.formats.files import LoadOptions, load_model
from models.network import Network
from models.plan import Plan, make_plan, read_plan
from models.weights import copy_layers, load_weights
from training.checkpoint import Checkpoint
from training.options import TrainOptions, with_settings
from utils.cfg import Cfg
from utils.errors import InputError
from utils.torch_files import is_torch_file

logger = logging.getLogger(__name__)

SCENES, SCENES_COUNT = Path("runs") / "scenes", 1000


@dataclass(frozen=True, kw_only=True)
class Sets:
    """train and val hold one split each, of that name; diagnosis: what the doctor found in train."""

    train: Dataset
    val: Dataset
    diagnosis: DatasetReport

    @property
    def images(self) -> int:
        return len(self.train.splits["train"])


def open_sets(settings: TrainOptions) -> Sets:
    """The data set of --data; without one, drawn scenes. Raises InputError if there is nothing to learn from."""
    path = settings.data
    if path is None:
        logger.info("no --data: training on drawn scenes in %s; name your own data with --data my.data", SCENES)
        path = str(make_scenes(SCENES, SCENES_COUNT))
    train, val = (open_data(path, split, names=settings.names) for split in ("train", "val"))
    if not train.names:
        raise InputError(f"{path}: no class names, name a file of them with --names")
    if settings.single_cls:
        train, val = single_class(train), single_class(val)
    if not settings.notest and not val.splits["val"]:
        raise InputError(f"{val.source}: no images in split 'val'; without them, --notest")
    diagnosis = check_dataset(train, "train", workers=settings.workers)
    return Sets(train=train, val=val, diagnosis=diagnosis)


def require_labels(cfg: str, sets: Sets) -> None:
    """Say what the doctor found, for a cfg with boxes; raises InputError if not one of them can be used."""
    if not read_plan(cfg).box_heads:
        return
    logger.info("%s", report(sets.diagnosis))
    if not sets.diagnosis.labels:
        raise InputError(f"{sets.train.source}: no usable labels in split 'train', there is nothing to learn")


def fitted(settings: TrainOptions, sets: Sets) -> Cfg:
    """The cfg of --cfg, fitted to the data set and changed by the flags. Raises InputError."""
    assert settings.cfg is not None
    plan = read_plan(settings.cfg)
    classes = len(sets.train.names)
    if classes_of(plan) != classes:
        logger.info("%s: fitted from %d to %d classes", settings.cfg, classes_of(plan), classes)
        plan = make_plan(fit_classes(plan, classes, sets.diagnosis.class_counts.tolist()))
    plan = make_plan(with_settings(plan, settings, sets.images))
    if settings.anchors is not None:
        plan = make_plan(_with_anchors(plan, settings, sets.diagnosis))
    return plan.cfg


def _with_anchors(plan: Plan, settings: TrainOptions, diagnosis: DatasetReport) -> Cfg:
    """New anchors by k-means, as many as there are or as --anchors says."""
    heads = anchor_heads(plan)
    if not heads:
        raise InputError(f"{plan.cfg.path}: --anchors {settings.anchors}: the cfg has no head with anchors")
    before = anchors_in_pixels(plan)
    count = len(before) if settings.anchors == "auto" else _count(settings.anchors)
    sizes = diagnosis.cxcywh_rel[:, 2:] * np.array([plan.input.width, plan.input.height])
    anchors = compute_anchors(sizes, count, seed=settings.seed)
    strides = [plan.input.width // step.shape.width for step in heads]
    masks: Sequence[Sequence[int]] = anchor_masks(count, strides)
    logger.info("anchors before: %s", anchor_fit(sizes, before))
    logger.info("anchors now:    %s", anchor_fit(sizes, anchors))
    return fit_anchors(plan, anchors.tolist(), masks)


def _count(text: str | None) -> int:
    if text is None or not text.isdigit() or int(text) < 1:
        raise InputError(f"--anchors {text}: expected auto or a whole number above 0")
    return int(text)


def load_start(network: Network, path: str | Path, *, clear: bool) -> None:
    """Load initial weights: the layers that match of a .weights file, a backbone (.conv.N), a .pt or .safetensors file.

    When all layers match, `network` takes over the number of images seen, unless `clear`.
    """
    if Path(path).suffix == ".safetensors" or is_torch_file(path):
        source = load_model(path, LoadOptions(cfg=network.plan.cfg.path, own_cfg=True)).network
        loaded = copy_layers(network, source, path)
    else:
        loaded = load_weights(network, path, partial=True)
    random = {index for index, _ in network.stored()} - set(loaded.layers)
    if random:
        logger.info("%s: the other layers start with random weights, iterations count from 0", path)
    if random or clear:
        network.seen = 0


def fill(network: Network, checkpoint: Checkpoint) -> None:
    """Give the network of a checkpoint's cfg its tensors. Raises InputError if they do not fit."""
    try:
        network.load_state_dict(checkpoint.model)
    except RuntimeError as error:  # what PyTorch raises for names and sizes that differ
        reason = " ".join(str(error).split()[:40])
        raise InputError(f"{network.plan.cfg.path}: the checkpoint's tensors do not fit: {reason}") from None

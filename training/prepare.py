"""Preparation of a training: the data set, the cfg fitted to it, and the initial weights."""

from __future__ import annotations

import difflib
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
from models.heads.base import BoxSection
from models.layers.base import LayerSection
from models.network import Network
from models.plan import SIZE_HINT, Plan, make_plan
from models.shipped import shipped_model
from models.weights import copy_layers, load_weights
from training.options import TrainOptions
from utils import cfg as cfg_text
from utils.cfg import Cfg
from utils.cli import as_typed, input_size
from utils.errors import CfgError, InputError
from utils.net_options import NET_AUDIENCES, ScheduleOptions
from utils.torch_files import is_torch_file

logger = logging.getLogger(__name__)

KEPT_ANCHORS = "cfg"  # value of --anchors that keeps those of the cfg, even if the recipe sets others
SCENES, SCENES_COUNT = Path("runs") / "scenes", 1000
_FITTED_KEYS = {"classes", "num", "anchors", "mask"}  # head keys determined by the data or by --anchors


@dataclass(frozen=True, kw_only=True)
class DataSplits:
    """The data set: the splits train and val, and the doctor's report on train (`checked`)."""

    train: Dataset
    val: Dataset
    checked: DatasetReport

    @property
    def images(self) -> int:
        """Number of training images."""
        return len(self.train.splits["train"])


def open_splits(path: str | None, names: str | None, *, single_cls: bool, validation: bool, workers: int) -> DataSplits:
    """Open the data set at `path`; generated scenes if `path` is None.

    names: file of class names to use instead of the data set's.
    Raises InputError if there is nothing to learn from, or no validation set although `validation` requires one.
    """
    if path is None:
        logger.info("no --data: training on generated scenes in %s; use --data my.data for your own data", SCENES)
        path = str(make_scenes(SCENES, SCENES_COUNT))
    train, val = (open_data(path, split, names=names) for split in ("train", "val"))
    if not train.names:
        raise InputError(f"{path}: no class names, expected --names FILE with one name per line")
    if single_cls:
        train, val = single_class(train), single_class(val)
    if validation and not val.splits["val"]:
        raise InputError(f"{val.source}: no images in split 'val'; train without validation with --no-val")
    if validation and set(val.splits["val"]) == set(train.splits["train"]):
        hint = as_typed("python convert.py labels --val 0.2")
        logger.warning("%s: no validation images, so mAP is that of the training images; hold some out: %s", path, hint)
    return DataSplits(train=train, val=val, checked=check_dataset(train, "train", workers=workers))


def require_labels(plan: Plan, splits: DataSplits) -> None:
    """Report on the labels, for networks with boxes. Raises InputError if no label is usable."""
    if not plan.box_heads:
        return
    logger.info("%s", report(splits.checked))
    splits.checked.require_labels(splits.train.source)


def box_head(plan: Plan) -> BoxSection | None:
    """The last head with boxes; as in the original, its keys control the augmentation for all heads."""
    return plan.box_sections[-1] if plan.box_heads else None


def fit_cfg(plan: Plan, options: TrainOptions, splits: DataSplits) -> Cfg:
    """Fit the cfg to the classes of the data set, and apply the flags that override its values. Raises InputError."""
    classes = len(splits.train.names)
    if classes_of(plan) != classes:
        logger.info("%s: classes fitted from %d to %d", plan.cfg.path, classes_of(plan), classes)
        plan = make_plan(fit_classes(plan, classes, splits.checked.class_counts.tolist()))
    if options.overrides:
        plan = make_plan(_with_keys(plan, options.overrides))
    cfg = plan.cfg.with_values(0, _net_values(plan, options, splits.images))
    if options.multi_scale and plan.box_heads:
        cfg = cfg.with_values(plan.box_heads[-1].index + 1, {"random": 1})
    try:
        plan = make_plan(cfg)
    except CfgError as error:
        if not options.img_size:
            raise
        raise InputError(f"{error}; this is at the size of --img-size: {SIZE_HINT}") from None
    if options.anchors in (None, KEPT_ANCHORS):
        return cfg
    return _with_anchors(plan, options.anchors, splits.checked, options.seed)


def _with_keys(plan: Plan, words: Sequence[str]) -> Cfg:
    """Apply the `key=value` words of --set to all heads with boxes that have the key, or else to [net].

    Raises InputError for a key that is unknown or has no effect, and for a value that cannot be read.
    """
    net = {key: item for audience in NET_AUDIENCES for key, item in audience.keys().items()}
    other = _FITTED_KEYS | LayerSection.keys().keys()
    heads = {
        step.index + 1: {key: item for key, item in step.section.keys().items() if key not in other}
        for step in plan.box_heads
    }
    known = net | {key: item for keys in heads.values() for key, item in keys.items()}
    values: dict[int, dict[str, str]] = {}  # by index of the section
    for word in words:
        key, _, value = word.partition("=")
        if not value or "\n" in word:
            raise InputError(f"--set {word}: expected key=value")
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f", did you mean {close[0]}?" if close else ""
            raise InputError(f"--set {word}: neither [net] nor a head has a key {key}{hint}")
        if "ignored" in known[key].metadata:
            raise InputError(f"--set {word}: {key} has no effect: {known[key].metadata['ignored']}")
        for section in [head for head, keys in heads.items() if key in keys] or [0]:
            values.setdefault(section, {})[key] = value
    cfg = plan.cfg
    for section, new in values.items():
        lines = [f"[{cfg.sections[section].name}]", *map("=".join, new.items())]
        raw = cfg_text.parse("\n".join(lines), "--set").sections[0]
        for reader in NET_AUDIENCES if section == 0 else (type(plan.steps[section - 1].section),):
            try:
                reader.from_raw(raw)
            except CfgError as error:  # without its line, which only our own text has
                raise InputError(f"--set: {str(error).partition(': ')[2]}") from None
        cfg = cfg.with_values(section, new)
    return cfg


def _net_values(plan: Plan, options: TrainOptions, images: int) -> dict[str, object]:
    """Values for the keys of [net] that have their own flags; images: number of training images."""
    size_wh = input_size(options.img_size) or (None, None)
    given = {
        "batch": options.batch_size,
        "subdivisions": options.subdivisions,
        "width": size_wh[0],
        "height": size_wh[1],
        "adam": 1 if options.adam else None,
        "ema_alpha": None if options.ema_alpha is None else f"{options.ema_alpha:g}",
    }
    values: dict[str, object] = {key: value for key, value in given.items() if value is not None}
    length = training_length(options, plan, images)
    if length is not None:
        values |= _of_length(ScheduleOptions.from_raw(plan.cfg.sections[0]), length)
    return values


def training_length(options: TrainOptions, plan: Plan, images: int) -> int | None:
    """Number of iterations from --iterations or --epochs; None without either."""
    if options.iterations is None and options.epochs is not None:
        return max(1, -(-options.epochs * images // max(1, options.batch_size or plan.net.batch)))
    return options.iterations


def _of_length(schedule: ScheduleOptions, length: int) -> dict[str, object]:
    """Set max_batches, and scale `steps` in proportion."""
    values: dict[str, object] = {"max_batches": length}
    if schedule.steps and schedule.max_batches:
        values["steps"] = ",".join(str(max(1, round(step * length / schedule.max_batches))) for step in schedule.steps)
    if schedule.burn_in >= length:
        text = (
            "burn_in=%d: the learning rate still rises at the end of the %d iterations and never reaches learning_rate"
        )
        logger.warning(text, schedule.burn_in, length)
    return values


def _with_anchors(plan: Plan, anchors: str, checked: DatasetReport, seed: int) -> Cfg:
    """Replace the anchors by as many as --anchors requests, computed from the labels by k-means."""
    heads = anchor_heads(plan)
    if not heads:
        raise InputError(f"{plan.cfg.path}: --anchors {anchors}: the cfg has no head with anchors")
    before = anchors_in_pixels(plan)
    count = len(before) if anchors == "auto" else int(anchors) if anchors.isdigit() else 0
    if count < 1:
        raise InputError(f"--anchors {anchors}: expected auto, cfg or a whole number above 0")
    sizes = checked.cxcywh_rel[:, 2:] * np.array(plan.input.size_wh)
    computed = compute_anchors(sizes, count, seed=seed)
    masks: Sequence[Sequence[int]] = anchor_masks(count, [plan.input.width // step.shape.width for step in heads])
    logger.info("anchors before: %s", anchor_fit(sizes, before))
    logger.info("anchors now:    %s", anchor_fit(sizes, computed))
    return fit_anchors(plan, computed.tolist(), masks)


def load_start(network: Network, path: str | Path, *, clear: bool) -> None:
    """Load initial weights: the matching layers of a .weights file, a backbone (.conv.N), a .pt or .safetensors file.

    If all layers match, `network` also takes over the number of images seen, unless `clear`.
    path: the file, or the name of a shipped model.
    """
    shipped = shipped_model(path)
    path = shipped.weights if shipped else path
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

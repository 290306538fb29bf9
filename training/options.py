"""The flags of train.py as typed values, and what they change in a cfg."""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.plan import Plan, make_plan
from utils import cfg as cfg_text
from utils.cfg import Cfg
from utils.errors import InputError
from utils.files import write_text
from utils.net_options import NET_AUDIENCES, ScheduleOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """See `python train.py --help`. None: what the cfg says."""

    cfg: str | None = None
    data: str | None = None
    names: str | None = None
    weights: str | None = None
    clear: bool = False
    epochs: int | None = None
    iterations: int | None = None
    batch_size: int | None = None
    subdivisions: int | None = None
    img_size: tuple[int, ...] = ()
    multi_scale: bool = False
    anchors: str | None = None
    augment: str | None = None
    single_cls: bool = False
    cache_images: str | None = None
    class_balanced: bool = False
    rect: bool = False
    adam: bool = False
    net: tuple[str, ...] = ()
    adamw: bool = False
    clip_grad_norm: float = 0.0
    sync_bn: bool = False
    cos_lr: bool = False
    ema_alpha: float | None = None
    freeze: int = 0
    bn_momentum: float | None = None
    amp: str | None = None
    channels_last: bool = True
    device: str = ""
    workers: int = 2
    seed: int = 0
    eval_period: int | None = None
    patience: int = 0
    notest: bool = False
    nosave: bool = False
    save_period: int | None = None
    noplots: bool = False
    tensorboard: bool | None = None
    print: str = "bar"
    project: str = "runs/train"
    name: str = "exp"
    exist_ok: bool = False

    def plain(self) -> dict[str, Any]:
        """As lists and simple values."""
        values = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> TrainOptions:
        typed: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**typed)


def batch_of(plan: Plan) -> tuple[int, int]:
    """Images of a weight update, and forward passes in it; what does not divide evenly is cut off, as the original does.

    Raises InputError for a batch of one image, which the original refuses too.
    """
    batch, subdivisions = max(1, plan.net.batch), max(1, plan.net.subdivisions)
    if batch == 1:
        raise InputError(
            f"{plan.cfg.path}: [net] batch=1 is for detection; set batch and subdivisions, or --batch-size"
        )
    used = max(1, batch // subdivisions) * subdivisions
    if used != batch:
        logger.warning(
            "[net] batch=%d is no multiple of subdivisions=%d: %d images an update", batch, subdivisions, used
        )
    return used, subdivisions


def with_settings(plan: Plan, settings: TrainOptions, images: int) -> Cfg:
    """The cfg with everything that flags override in it; images: of the training split."""
    if settings.net:
        plan = make_plan(plan.cfg.with_values(0, net_values(settings.net)))
    raw = plan.cfg.sections[0]
    values: dict[str, object] = {}
    for key, given in (("batch", settings.batch_size), ("subdivisions", settings.subdivisions)):
        if given is not None:
            values[key] = given
    if settings.img_size:
        values |= {"width": settings.img_size[0], "height": settings.img_size[-1]}
    if settings.adam:
        values["adam"] = 1
    if settings.ema_alpha is not None:
        values["ema_alpha"] = f"{settings.ema_alpha:g}"
    length = settings.iterations
    if length is None and settings.epochs is not None:
        batch = settings.batch_size or plan.net.batch
        length = max(1, -(-settings.epochs * images // max(1, batch)))
    if length is not None:
        values |= _of_length(ScheduleOptions.from_raw(raw), length)
    cfg = plan.cfg.with_values(0, values)
    if settings.multi_scale and plan.box_heads:
        cfg = cfg.with_values(plan.box_heads[-1].index + 1, {"random": 1})
    return cfg


def without_effect(settings: TrainOptions, plan: Plan) -> list[str]:
    """What was asked for and cannot act, a line each."""
    asked = (
        ("--patience", "with --notest", settings.notest and settings.patience),
        ("--eval-period", "with --notest", settings.notest and settings.eval_period),
        ("--save-period", "with --nosave", settings.nosave and settings.save_period),
        ("--clear", "without --weights", settings.clear and settings.weights is None),
        ("--multi-scale", "on a classifier", settings.multi_scale and not plan.box_heads),
    )
    return [f"{flag} has no effect {reason}" for flag, reason, idle in asked if idle]


def net_values(given: Sequence[str]) -> dict[str, str]:
    """Keys of [net] from `key=value` words. Raises InputError for a key that is unknown or has no effect, and for its value."""
    known = {key: item for options in NET_AUDIENCES for key, item in options.keys().items()}
    values = {}
    for word in given:
        key, equals, value = word.partition("=")
        if not equals or not value or "\n" in word:
            raise InputError(f"--set {word}: expected key=value")
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise InputError(f"--set {word}: [net] has no key {key}" + (f", did you mean {near[0]}?" if near else ""))
        if "ignored" in known[key].metadata:
            raise InputError(f"--set {word}: {key} has no effect: {known[key].metadata['ignored']}")
        values[key] = value
    section = cfg_text.parse("\n".join(["[net]", *map("=".join, values.items())]), "--set").sections[0]
    for options in NET_AUDIENCES:
        options.from_raw(section)
    return values


def _of_length(options: ScheduleOptions, length: int) -> dict[str, object]:
    """Iterations in all, and `steps` moved in proportion."""
    values: dict[str, object] = {"max_batches": length}
    if options.steps and options.max_batches:
        values["steps"] = ",".join(str(max(1, round(step * length / options.max_batches))) for step in options.steps)
    if options.burn_in >= length:
        text = "burn_in=%d: the learning rate rises to the end of the %d iterations and never reaches learning_rate"
        logger.warning(text, options.burn_in, length)
    return values


def write_record(path: Path, settings: TrainOptions, cfg: Cfg) -> None:
    """opt.yaml: the flags, and [net] of the fitted cfg."""
    lines = ["flags:", *(f"  {key}: {json.dumps(value)}" for key, value in settings.plain().items()), "net:"]
    lines += [f"  {entry.key}: {json.dumps(entry.value)}" for entry in cfg.sections[0].entries]
    write_text(path, "\n".join(lines) + "\n")

"""The flags of train.py as one record, and how it is stored."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.cfg import Cfg
from utils.files import write_text

_OLD_NAMES = {
    "augment": "albumentations",
    "net": "overrides",
    "noplots": "no_plots",
    "nosave": "no_save",
    "notest": "no_val",
}


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The flags of train.py; `python train.py --help` explains them. None means the value in the cfg, or off."""

    cfg: str | None
    recipe: str | None
    plan: bool
    data: str | None
    names: str | None
    weights: str | None
    clear: bool
    resume: str | None
    epochs: int | None
    iterations: int | None
    batch_size: int | None
    subdivisions: int | None
    img_size: tuple[int, ...]
    multi_scale: bool
    anchors: str | None
    adam: bool
    overrides: tuple[str, ...]
    ema_alpha: float | None
    albumentations: str | None
    average: float | None
    dihedral: bool | None
    single_cls: bool
    cache_images: str | None
    class_balanced: bool
    rect: bool
    adamw: bool
    clip_grad_norm: float
    cos_lr: bool | None
    freeze: int
    bn_momentum: float | None
    calibrate_bn: bool
    sync_bn: bool
    amp: str | None
    channels_last: bool
    device: str
    workers: int
    seed: int
    eval_period: int | None
    patience: int
    no_val: bool
    no_save: bool
    save_period: int | None
    no_plots: bool
    tensorboard: bool | None
    print: str
    project: str
    name: str
    exist_ok: bool

    def plain(self) -> dict[str, Any]:
        """The options as lists and simple values."""
        values = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def with_plain(self, values: Mapping[str, Any]) -> TrainOptions:
        """A copy with the values of `plain`, which an earlier version may have written."""
        typed: dict[str, Any] = {
            _OLD_NAMES.get(key, key): tuple(v) if isinstance(v, list) else v for key, v in values.items()
        }
        return dataclasses.replace(self, **typed)


def write_record(path: Path, options: TrainOptions, cfg: Cfg) -> None:
    """Write opt.yaml: the flags, and [net] of the fitted cfg."""
    lines = ["flags:", *(f"  {key}: {json.dumps(value)}" for key, value in options.plain().items()), "net:"]
    lines += [f"  {entry.key}: {json.dumps(entry.value)}" for entry in cfg.sections[0].entries]
    write_text(path, "\n".join(lines) + "\n")

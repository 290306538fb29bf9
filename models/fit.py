"""Adapts a cfg to a data set in memory: number of classes, anchors, and the `filters` that depend on them.

The original has users edit `classes` and `filters` by hand in several places.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.heads.base import BoxSection, HeadSection
from models.layers.base import Step, absolute
from models.plan import Plan, make_plan
from utils import cfg as cfg_text
from utils.cfg import Cfg
from utils.errors import HeadWidthError, InputError

logger = logging.getLogger(__name__)

_WIDTH_KEYS = ("filters", "output")  # keys that set the number of output channels


def read_plan_to_fit(path: str | Path) -> Plan:
    """Plan a cfg that will be fitted; wrong `filters` before a head are corrected. Raises InputError."""
    cfg = cfg_text.read(path)
    while True:
        try:
            return make_plan(cfg)
        except HeadWidthError as error:
            entry = cfg.sections[error.section].find(error.key)
            if entry is None or entry.value == str(error.width):
                raise
            place = f"{path}:{entry.line}: [{cfg.sections[error.section].name}]"
            logger.warning("%s %s=%s corrected to %d", place, error.key, entry.value, error.width)
            cfg = cfg.with_values(error.section, {error.key: error.width})


def classes_of(plan: Plan) -> int:
    """Number of classes of the heads, or number of outputs of a classifier. Raises InputError if there is no head."""
    heads = [step for step in plan.steps if step.section.is_head]
    if not heads:
        raise InputError(
            f"{plan.cfg.path}: has no layer with a loss, expected [yolo], [softmax] or another head at its end"
        )
    section = heads[-1].section
    return section.classes if isinstance(section, BoxSection) else heads[-1].site.input.outputs


def fit_classes(plan: Plan, classes: int, counters: Sequence[int] = ()) -> Cfg:
    """Return the cfg with `classes` set in every head, and `filters` adjusted in the layers before it.

    counters: number of objects of each class, for heads with counters_per_class.
    Raises InputError if the filters cannot be adjusted.
    """
    changes = _Changes(plan)
    for step in plan.steps:
        section = step.section
        if isinstance(section, BoxSection):
            fitted = dataclasses.replace(section, classes=classes)
            changes.set(step, "classes", classes)
            changes.set_width(step, fitted.filters)
            if getattr(section, "counters_per_class", None) is not None:
                changes.set(step, "counters_per_class", ",".join(map(str, counters)))
        elif isinstance(section, HeadSection) and section.is_head and section.labels == "vector":
            changes.set_width(step, classes)
    return changes.cfg()


def anchor_heads(plan: Plan) -> tuple[Step, ...]:
    """The heads with anchors, in cfg order."""
    return tuple(step for step in plan.steps if step.section.is_head and hasattr(step.section, "anchor_sizes"))


def anchors_in_pixels(plan: Plan) -> list[tuple[float, float]]:
    """Width and height of all anchors, in pixels of the network's input."""
    step = anchor_heads(plan)[-1]
    unit_x, unit_y = _unit(plan, step)
    return [(width * unit_x, height * unit_y) for width, height in step.section.anchor_sizes]  # type: ignore[attr-defined]


def fit_anchors(plan: Plan, sizes_px: Sequence[Sequence[float]], masks: Sequence[Sequence[int]]) -> Cfg:
    """Return the cfg with other anchors.

    sizes_px: width and height of each anchor, in pixels.
    masks: indices of each head's anchors, heads in cfg order.
    """
    changes = _Changes(plan)
    heads = anchor_heads(plan)
    for step, mask in zip(heads, masks, strict=True):
        unit_x, unit_y = _unit(plan, step)
        text = ", ".join(f"{width / unit_x:.4g},{height / unit_y:.4g}" for width, height in sizes_px)
        values: dict[str, Any] = {"num": len(sizes_px)}
        if _has(step, "mask"):
            values["mask"] = tuple(mask)
        changes.set(step, "anchors", text)
        for key, value in values.items():
            changes.set(step, key, ",".join(map(str, value)) if isinstance(value, tuple) else value)
        changes.set_width(step, dataclasses.replace(step.section, **values).filters)  # type: ignore[attr-defined]
    return changes.cfg()


class _Changes:
    """New values of keys by section, collected before the text is rewritten."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.values: dict[int, dict[str, object]] = {}

    def set(self, step: Step, key: str, value: object) -> None:
        known = self.values.setdefault(step.index, {})
        if known.setdefault(key, value) != value:
            raise step.site.error(f"{key}: cannot be {known[key]} for one head and {value} for another", key)

    def set_width(self, head: Step, channels: int) -> None:
        """Make `head` read `channels` channels by changing the layers that produce them."""
        if head.site.input.outputs == channels or head.site.input.channels == channels:
            return
        for source in head.sources:
            self._set_width(head, source, channels)

    def _set_width(self, head: Step, index: int, channels: int) -> None:
        if index < 0:
            raise head.site.error(f"reads the network's input, which cannot have {channels} channels")
        step = self.plan.steps[index]
        key = next((key for key in _WIDTH_KEYS if _has(step, key)), None)
        if key is None:
            if any(shape.channels != step.shape.channels for shape in step.site.inputs):
                text = f"its input comes from [{step.raw.name}] (layer {index}), which joins or splits channels"
                raise head.site.error(f"{text}: filters cannot be fitted, expected {channels} there")
            for source in step.sources:
                self._set_width(head, source, channels)
            return
        self.set(step, key, channels)
        shared = getattr(step.section, "share_index", None)
        if shared is not None:
            self._set_width(head, absolute(index, shared), channels)

    def cfg(self) -> Cfg:
        """The rewritten cfg, planned once as a check that it is valid."""
        cfg = self.plan.cfg
        for index, values in self.values.items():
            cfg = cfg.with_values(index + 1, values)
        make_plan(cfg)
        return cfg


def _has(step: Step, key: str) -> bool:
    return any(item.name == key for item in dataclasses.fields(step.section))


def _unit(plan: Plan, step: Step) -> tuple[float, float]:
    """Pixels per unit of a head's anchors, along x and y: 1, or the size of a grid cell for heads without masks (YOLOv2)."""
    if _has(step, "mask"):
        return 1.0, 1.0
    return plan.input.width / step.site.input.width, plan.input.height / step.site.input.height

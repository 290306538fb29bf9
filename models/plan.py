"""Turns the raw sections of a cfg into a plan: typed sections, shapes, sources and costs, without a single tensor.

Planning any published cfg takes milliseconds. Impossible layers and excessive sizes are rejected here, before anything is
allocated.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from models.catalog import BY_NAME
from models.heads.base import BoxSection
from models.layers.base import MAX_OUTPUTS, Shape, Site, Step
from utils import cfg as cfg_text
from utils.cfg import Cfg, RawSection
from utils.errors import CfgError, InputError
from utils.net_options import NET_AUDIENCES, NetSection
from utils.options import count_repeats, warn_unknown

NET_NAMES = ("net", "network")
MAX_LAYERS = 10_000
SIZE_HINT = "most networks need multiples of 32"
MAX_WEIGHTS_BYTES = 2**35


@dataclass(frozen=True)
class Plan:
    """A network before any tensor exists."""

    cfg: Cfg
    net: NetSection
    input: Shape
    steps: tuple[Step, ...]

    @property
    def parameters(self) -> int:
        """Number of floats in the .weights file, after its header."""
        return sum(step.cost.parameters for step in self.steps)

    @property
    def heads(self) -> tuple[Step, ...]:
        """The layers with boxes or a training loss; the last layer if there is none."""
        return tuple(step for step in self.steps if step.section.is_head) or self.steps[-1:]

    @functools.cached_property
    def box_heads(self) -> tuple[Step, ...]:
        """The layers that predict boxes, in cfg order."""
        return tuple(step for step in self.steps if isinstance(step.section, BoxSection))

    @property
    def box_sections(self) -> tuple[BoxSection, ...]:
        """The options of `box_heads`."""
        return tuple(step.section for step in self.steps if isinstance(step.section, BoxSection))


def read_plan(path: str | Path, *, width: int | None = None, height: int | None = None) -> Plan:
    """Plan a cfg file, optionally at another input size. Raises InputError."""
    return make_plan(cfg_text.read(path), width=width, height=height)


@count_repeats()
def make_plan(cfg: Cfg, *, width: int | None = None, height: int | None = None) -> Plan:
    """Plan a parsed cfg, optionally at another input size. Raises CfgError with file, line and what was expected."""
    first, *layers = cfg.sections
    if first.name not in NET_NAMES:
        raise first.error("expected [net] or [network] as the first section")
    if not layers:
        raise CfgError(cfg.path, None, "has no layers after [net]")
    if len(layers) > MAX_LAYERS:
        raise CfgError(cfg.path, None, f"has {len(layers)} layers, expected at most {MAX_LAYERS}")
    warn_unknown(first, NET_AUDIENCES)
    net = NetSection.from_raw(first)
    resized = _resized(net, width, height)
    plan_input = _input_shape(first, resized)
    steps: list[Step] = []
    try:
        for raw in layers:
            steps.append(_plan_layer(raw, resized, plan_input, steps))
    except CfgError as error:
        if (resized.width, resized.height) == (net.width, net.height):
            raise
        sizes = f"requested, {resized.width}x{resized.height}, the cfg's own is {net.width}x{net.height}"
        raise InputError(f"{error}; this is at the input size {sizes}; {SIZE_HINT}") from None
    plan = Plan(cfg, resized, plan_input, tuple(steps))
    if 4 * plan.parameters > MAX_WEIGHTS_BYTES:
        raise CfgError(cfg.path, None, f"needs {plan.parameters:,} weights, which is too large")
    return plan


def _resized(net: NetSection, width: int | None, height: int | None) -> NetSection:
    """[net] with another input size."""
    for name, value in (("width", width), ("height", height)):
        if value is not None and value < 1:
            raise InputError(f"{name}: {value} is out of range, expected 1 or more pixels")
    return replace(net, width=width or net.width, height=height or net.height)


def _input_shape(raw: RawSection, net: NetSection) -> Shape:
    if net.width and net.height and net.channels:
        shape = Shape(net.channels, net.height, net.width)
    elif net.inputs:
        shape = Shape(net.inputs, 1, 1)
    else:
        raise raw.error("expected width, height and channels, or inputs, all above zero")
    if shape.outputs > MAX_OUTPUTS:
        raise raw.error(f"an input of {shape} is too large: {shape.outputs:,} values")
    return shape


def _plan_layer(raw: RawSection, net: NetSection, plan_input: Shape, earlier: Sequence[Step]) -> Step:
    index = len(earlier)
    section_type = BY_NAME.get(raw.name)
    if section_type is None:
        raise raw.error("unknown section" + ("; [net] can only be the first section" if raw.name in NET_NAMES else ""))
    warn_unknown(raw, (section_type,))
    section = section_type.from_raw(raw)
    sources = section.sources(index)
    for source in sources:
        if not -1 <= source < index or (source == -1 and index > 0):
            raise raw.error(f"reads layer {source}, expected an earlier layer; this is layer {index}")
    inputs = tuple(plan_input if source < 0 else earlier[source].shape for source in sources)
    site = Site(index, raw, net, inputs, earlier)
    shape = section.shape(site)
    _check_output(raw, shape)
    step = Step(section, site, sources, shape)
    if step.cost.parameters > MAX_OUTPUTS:
        raise raw.error(f"needs {step.cost.parameters:,} weights, which is too large")
    return step


def _check_output(raw: RawSection, shape: Shape) -> None:
    if min(shape.channels, shape.height, shape.width) < 1:
        raise raw.error(f"output would be {shape}, expected at least 1x1x1; the input is too small or a size is wrong")
    if shape.outputs > MAX_OUTPUTS:
        raise raw.error(f"output would be {shape}, {shape.outputs:,} values, which is too large")

"""The backbone of a cfg as a feature extractor, to put your own head on.

>>> backbone = features("cfg/csppeleenet.cfg", "csppeleenet.weights", levels=("c3", "c4", "c5"))
>>> maps = backbone(images)  # {"c3": (n, 256, height / 8, width / 8), ...}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from models.formats.files import LoadOptions, load_model
from models.layers.base import blank_weights
from models.network import Network
from models.plan import Plan, read_plan
from models.weights import load_weights
from utils.errors import InputError

LEVELS = ("c2", "c3", "c4", "c5")


class Features(nn.Module):
    """The layers of a network up to the last requested level.

    Call it with images (n, channels, height, width), RGB in [0, 1], both sides multiples of the largest stride. It returns
    the output (n, channels[name], height / strides[name], width / strides[name]) of each level by name.

    layers: layer index of each level.
    strides: pixels between neighbouring features of each level.
    channels: number of channels of each level.
    """

    def __init__(self, network: Network, layers: Mapping[str, int]) -> None:
        super().__init__()
        plan = network.plan
        self.layers = dict(layers)
        self.strides = {name: 1 << _depth(plan, index) for name, index in layers.items()}
        for name, index in layers.items():
            width = plan.steps[index].shape.width
            if abs(plan.input.width / (width * self.strides[name]) - 1) > 0.1:  # 304 pixels become 10 at stride 32
                raise InputError(
                    f"{plan.cfg.path}: level {name} is {width} of {plan.input.width} pixels wide, no power of two"
                )
        self.channels = {name: plan.steps[index].shape.channels for name, index in layers.items()}
        used = plan.steps[: max(layers.values()) + 1]
        with blank_weights():
            self.network = Network(replace(plan, steps=used))
        self.network.layers = network.layers[: len(used)]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = self.network.outputs(images, set(self.layers.values()))
        return {name: found[index] for name, index in self.layers.items()}


def features(
    cfg: str | Path, weights: str | Path | None = None, *, levels: Sequence[str] | Mapping[str, int] = LEVELS
) -> Features:
    """Build the feature extractor of a cfg, in evaluation mode on the CPU.

    weights: .weights (of the whole network or a backbone), .pt or .safetensors file; random weights without one.
    levels: names among c1, c2, ..., where cN is the last layer of the backbone at stride 2 ** N; or a mapping from name to
        layer index. Give a detector's last level by index, because a cfg does not say where the backbone ends.

    Raises InputError for a level that the cfg does not have, and for weights that end before the last level.
    """
    plan = read_plan(cfg)
    names = (levels,) if isinstance(levels, str) else levels
    layers = _given(plan, names) if isinstance(names, Mapping) else _found(plan, names)
    if not layers:
        raise InputError("levels: expected at least one level")
    if weights is None or Path(weights).suffix in (".pt", ".pth", ".safetensors"):
        return Features(load_model(weights, LoadOptions(cfg=cfg)).network, layers).eval()
    network = Network(plan)
    loaded, last = load_weights(network, weights, partial=True).layers, max(layers.values())
    stored = {index for index, _ in network.stored() if index <= last and not plan.steps[index].section.dontload}
    if missing := stored.difference(loaded):
        raise InputError(f"{weights}: has no weights for layer {min(missing)}, expected all up to layer {last}")
    return Features(network, layers).eval()


def _given(plan: Plan, levels: Mapping[str, int]) -> dict[str, int]:
    for name, index in levels.items():
        if not 0 <= index < len(plan.steps):
            raise InputError(f"{plan.cfg.path}: level {name}: no layer {index}, expected 0 to {len(plan.steps) - 1}")
    return dict(levels)


def _found(plan: Plan, levels: Sequence[str]) -> dict[str, int]:
    known = backbone_levels(plan)
    for name in levels:
        if name not in known:
            hint = "; give the end of a detector's backbone by its layer, as in levels={'c5': 74}"
            text = f"{plan.cfg.path}: has no level {name!r}, expected one of {', '.join(known)}"
            raise InputError(text + (hint if plan.box_heads else ""))
    return {name: known[name] for name in levels}


def backbone_levels(plan: Plan) -> dict[str, int]:
    """The layers of c1, c2, ...: for each stride, the last layer before the map is first downsampled further.

    A classifier's last level ends before its global pooling or its last layer with weights; a detector's is left out.
    """
    end = next((step.index for step in plan.steps if step.section.is_head), len(plan.steps))
    if end < len(plan.steps) and not plan.box_heads:
        end = max((step.index for step in plan.steps[:end] if step.cost.weights), default=end)
    ends: dict[int, int] = {}
    deepest = 0
    for step in plan.steps[:end]:
        if step.shape.height * step.shape.width == 1:  # squeeze-and-excitation, or a classifier's global pooling
            continue
        depth = _depth(plan, step.index)
        if depth >= deepest:
            deepest = depth
            ends[depth] = step.index
    if plan.box_heads:
        ends.pop(deepest, None)
    return {f"c{depth}": index for depth, index in ends.items() if depth}


def _depth(plan: Plan, index: int) -> int:
    """N for a layer at stride 2 ** N, rounded. Raises InputError if it differs between width and height."""
    shape = plan.steps[index].shape
    across, down = plan.input.width / shape.width, plan.input.height / shape.height
    depth = round(math.log2(across))
    if depth != round(math.log2(down)) or depth < 0:
        raise InputError(
            f"{plan.cfg.path}: layer {index} turns {plan.input} into {shape}, expected the same stride for both"
        )
    return depth

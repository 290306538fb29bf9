"""How much each convolution uses each earlier layer: mean absolute filter weights, after Figure 2 of VoVNet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.network import Network
from models.plan import Plan
from utils.plotting import figure, save


@dataclass(frozen=True)
class WeightNorms:
    """Weight norms of a convolution.

    layer: its index.
    sources: mean absolute weight on the channels of each layer that it reads, by index; -1 is the image.
    """

    layer: int
    sources: dict[int, float]

    def to_json(self) -> dict[str, object]:
        return {"layer": self.layer, "sources": {str(source): value for source, value in self.sources.items()}}


def weight_norms(network: Network) -> list[WeightNorms]:
    """Weight norms of all convolutions; sources are traced back through concatenation, pooling, upsampling and dropout."""
    plan, origins, found = network.plan, channel_origins(network.plan), []
    weights = {
        index: item.tensor.detach().abs().cpu().numpy()
        for index, item in network.stored()
        if item.kind == "weights" and item.tensor.ndim == 4
    }
    for index, magnitudes in weights.items():
        inputs = np.array(origins[plan.steps[index].sources[0]])
        filters, depth = magnitudes.shape[:2]
        groups = len(inputs) // depth
        if depth * groups != len(inputs) or filters % groups:  # not a convolution of its first input
            continue
        means = magnitudes.reshape(groups, filters // groups, depth, -1).mean((1, 3)).reshape(-1)
        sources = {int(source): float(means[inputs == source].mean()) for source in dict.fromkeys(inputs.tolist())}
        found.append(WeightNorms(index, sources))
    return found


def channel_origins(plan: Plan) -> dict[int, Sequence[int]]:
    """For each layer, the index of the layer that computed each of its output channels; -1 for the image."""
    found: dict[int, Sequence[int]] = {-1: (-1,) * plan.input.channels}
    for step in plan.steps:
        found[step.index] = step.section.origins(step.site, [found[source] for source in step.sources])
    return found


def weight_norms_text(norms: Sequence[WeightNorms]) -> str:
    """A line for each convolution that reads several layers: the norm of each source relative to the largest."""
    lines = ["layer   mean |w| of each source layer, and relative to the largest of them"]
    for each in norms:
        if len(each.sources) > 1:
            largest = max(each.sources.values()) or 1.0
            parts = (f"{source}: {value:.4f} ({value / largest:.2f})" for source, value in each.sources.items())
            lines.append(f"{each.layer:5}   {', '.join(parts)}")
    return "\n".join(lines) if len(lines) > 1 else "no convolution reads more than one layer"


def plot_weight_norms(path: str | Path, norms: Sequence[WeightNorms]) -> None:
    """Write a PNG: a column for each convolution that reads several layers, a row for each source; the largest value is 1.

    Raises InputError if matplotlib is not installed.
    """
    several = [each for each in norms if len(each.sources) > 1]
    sources = sorted({source for each in several for source in each.sources})
    grid = np.full((len(sources), len(several)), np.nan)
    for column, each in enumerate(several):
        for source, value in each.sources.items():
            grid[sources.index(source), column] = value / (max(each.sources.values()) or 1.0)
    chart = figure(max(5, 0.16 * len(several)), max(4, 0.16 * len(sources)))
    axes = chart.subplots()
    image = axes.imshow(grid, cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    chart.colorbar(image, label="mean absolute weight, relative to the layer's largest")
    axes.set(xlabel="layer", ylabel="source layer", title="Weights of each convolution by source")
    for axis, labels in ((axes.xaxis, [each.layer for each in several]), (axes.yaxis, sources)):
        step = max(1, len(labels) // 40)
        axis.set_ticks(range(0, len(labels), step), labels[::step], fontsize=6)
    axes.tick_params(axis="x", rotation=90)
    save(chart, path)

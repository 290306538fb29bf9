"""Cost and memory access of each layer as a chart, after CSPNet's Figures 7 and 8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.plotting import figure, save


@dataclass(frozen=True)
class LayerProfile:
    """One model: BFLOPs, input and output elements of each of its computing layers, in order."""

    name: str
    bflops: Sequence[float]
    inputs: Sequence[int]
    outputs: Sequence[int]


def plot_layers(path: str | Path, profiles: Sequence[LayerProfile]) -> None:
    """Write a PNG: BFLOPs of each layer of all models together, then a row with sizes for each model.

    Raises InputError when matplotlib is not installed.
    """
    chart = figure(11, 3.2 + 2.2 * len(profiles))
    top, *rows = chart.subplots(
        1 + len(profiles), 1, gridspec_kw={"height_ratios": [3.2] + [2.2] * len(profiles)}, squeeze=False
    )[:, 0]
    for number, profile in enumerate(profiles):
        largest = max(profile.bflops, default=0.0)
        label = f"{profile.name} (largest {largest:.3f})"
        top.step(
            range(len(profile.bflops)), profile.bflops, where="mid", color=f"C{number}", label=label, linewidth=1.2
        )
        top.axhline(largest, color=f"C{number}", linestyle=":", linewidth=0.8)
    top.set(title="Computation per layer", ylabel="BFLOPs")
    top.legend(loc="upper left", fontsize="small")
    top.set_ylim(top=top.get_ylim()[1] * (1.05 + 0.09 * len(profiles)))  # room for the legend above the curves
    ceiling = 1.2 * max((max(*p.inputs, *p.outputs) for p in profiles if p.inputs), default=1) / 1e6
    for number, (axes, profile) in enumerate(zip(rows, profiles, strict=True)):
        places = range(len(profile.inputs))
        axes.bar([x - 0.2 for x in places], [n / 1e6 for n in profile.inputs], 0.4, color=f"C{number}", label="input")
        axes.bar(
            [x + 0.2 for x in places],
            [n / 1e6 for n in profile.outputs],
            0.4,
            color=f"C{number}",
            alpha=0.45,
            label="output",
        )
        total = (sum(profile.inputs) + sum(profile.outputs)) / 1e6
        axes.set(title=f"{profile.name}: input and output of each layer, {total:.1f} M in total", ylabel="elements [M]")
        axes.set_ylim(0, ceiling)
        axes.legend(loc="upper right", fontsize="small", ncols=2)
    for axes in (top, *rows):
        axes.margins(x=0.01)
        axes.grid(axis="y", linewidth=0.4, alpha=0.6)
        axes.set_axisbelow(True)
    rows[-1].set_xlabel("convolutions and pooling layers, in order")
    save(chart, path)

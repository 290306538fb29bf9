"""A chart of cost and memory access per layer, after Figures 7 and 8 of CSPNet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.plan import Plan
from models.summary import layer_loads
from utils.plotting import figure, save


def plot_layers(path: str | Path, plans: Sequence[Plan]) -> None:
    """Write a PNG: at the top, BFLOPs per layer of all plans together; below, a row of sizes for each plan.

    Raises InputError if matplotlib is not installed.
    """
    models = [(Path(plan.cfg.path).stem, layer_loads(plan)) for plan in plans]
    heights = [3.2] + [2.2] * len(models)
    chart = figure(11, sum(heights))
    top, *rows = chart.subplots(len(heights), 1, gridspec_kw={"height_ratios": heights}, squeeze=False)[:, 0]
    for number, (name, loads) in enumerate(models):
        bflops = [load.operations / 1e9 for load in loads]
        largest = max(bflops, default=0.0)
        line = {"color": f"C{number}", "label": f"{name} (largest {largest:.3f})"}
        top.step(range(len(bflops)), bflops, where="mid", linewidth=1.2, **line)
        top.axhline(largest, color=f"C{number}", linestyle=":", linewidth=0.8)
    top.set(title="Computation per layer", ylabel="BFLOPs")
    top.legend(loc="upper left", fontsize="small")
    top.set_ylim(top=top.get_ylim()[1] * (1.05 + 0.09 * len(models)))  # room for the legend above the curves
    ceiling = 1.2 * max((max(load.input, load.output) for _, loads in models for load in loads), default=1) / 1e6
    for number, (axes, (name, loads)) in enumerate(zip(rows, models, strict=True)):
        places = np.arange(len(loads))
        sizes = np.array([(load.input, load.output) for load in loads]).reshape(-1, 2) / 1e6
        axes.bar(places - 0.2, sizes[:, 0], 0.4, color=f"C{number}", label="input")
        axes.bar(places + 0.2, sizes[:, 1], 0.4, color=f"C{number}", label="output", alpha=0.45)
        title = f"{name}: input and output of each layer, {sizes.sum():.1f} M in total"
        axes.set(title=title, ylabel="elements [M]")
        axes.set_ylim(0, ceiling)
        axes.legend(loc="upper right", fontsize="small", ncols=2)
    for axes in (top, *rows):
        axes.margins(x=0.01)
        axes.grid(axis="y", linewidth=0.4, alpha=0.6)
        axes.set_axisbelow(True)
    rows[-1].set_xlabel("convolutions and pooling layers, in order")
    save(chart, path)

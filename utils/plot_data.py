"""Pictures of what a data set holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.plotting import figure, save

_MOST_CLASSES = 40


def plot_labels(
    path: str | Path,
    names: Sequence[str],
    class_counts: NDArray[np.int64],
    cxcywh_rel: NDArray[np.float64],
    sizes_wh: NDArray[np.int64],
    per_image: NDArray[np.int64],
) -> None:
    """Labels of each class, box centres and sizes, picture sizes and labels in a picture, as one picture.

    Raises InputError when matplotlib is not installed, RunError when `path` cannot be written.
    """
    chart = figure(12, 8.5, edges_in=(0.7, 0.8, 0.3, 0.4))
    axes = chart.subplot_mosaic([["classes", "classes", "classes"], ["centres", "sizes", "pictures"]])
    chart.subplots_adjust(hspace=0.5, wspace=0.25)
    _class_bars(axes["classes"], names, class_counts)
    axes["centres"].set_title("box centres, parts of the picture")
    axes["sizes"].set_title("box sizes, parts of the picture")
    if len(cxcywh_rel):
        for name, x, y in (("centres", 0, 1), ("sizes", 2, 3)):
            counts, x_edges, y_edges = np.histogram2d(cxcywh_rel[:, x], cxcywh_rel[:, y], 50, [[0, 1], [0, 1]])
            axes[name].pcolormesh(x_edges, y_edges, np.log1p(counts.T), cmap="Blues")
    axes["centres"].set(xlabel="x", ylabel="y", ylim=(1, 0), aspect="equal")
    axes["sizes"].set(xlabel="width", ylabel="height", aspect="equal")
    axes["pictures"].set_title(f"labels in a picture ({len(sizes_wh)} readable pictures)")
    axes["pictures"].set(xlabel=_size_text(sizes_wh), ylabel="pictures")
    if len(per_image):
        axes["pictures"].hist(per_image, bins=min(40, int(per_image.max()) + 1), color="tab:blue")
    save(chart, path)


def _class_bars(axis: Any, names: Sequence[str], class_counts: NDArray[np.int64]) -> None:
    order = np.argsort(-class_counts[: len(names)], kind="stable")[:_MOST_CLASSES]
    shown = f", the {len(order)} most frequent of {len(names)} classes" if len(order) < len(names) else ""
    axis.set_title(f"{int(class_counts.sum())} labels{shown}")
    axis.bar(range(len(order)), class_counts[order], color="tab:blue")
    axis.set_xticks(range(len(order)), [names[i] for i in order], rotation=60, ha="right")
    axis.set_xlim(-0.6, max(len(order), 1) - 0.4)


def _size_text(sizes_wh: NDArray[np.int64]) -> str:
    if not len(sizes_wh):
        return "labels"
    low, high = sizes_wh.min(axis=0), sizes_wh.max(axis=0)
    return f"labels\n(pictures {low[0]} to {high[0]} px wide, {low[1]} to {high[1]} px high)"

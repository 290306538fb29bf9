"""Pictures of what a data set holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.plotting import figure, save

_MOST_CLASSES = 40
_FEW_CLASSES = 8
_MOST_BARS = 40
_CELLS = 50
_NEARLY_ALL = 0.999
_LEAST_RANGE = 0.05


def plot_labels(
    path: str | Path,
    names: Sequence[str],
    class_counts: NDArray[np.int64],
    cxcywh_rel: NDArray[np.float64],
    sizes_wh: NDArray[np.int64],
    per_image: NDArray[np.int64],
    anchors_rel: NDArray[np.float64] | None = None,
) -> None:
    """Labels of each class, box centres and sizes, picture sizes and labels in a picture, as one picture.

    anchors_rel: (n, 2), width and height of a network's anchors as parts of its input, drawn over the box sizes.
    Raises InputError when matplotlib is not installed, RunError when `path` cannot be written.
    """
    chart = figure(12, 8.5, edges_in=(0.7, 0.8, 0.3, 0.4))
    axes = chart.subplot_mosaic([["classes", "classes", "classes"], ["centres", "sizes", "pictures"]])
    chart.subplots_adjust(hspace=0.5, wspace=0.25)
    _class_bars(axes["classes"], names, class_counts)
    axes["centres"].set_title("box centres, parts of the picture")
    _cloud(axes["centres"], cxcywh_rel[:, :2], 1.0)
    axes["centres"].set(xlabel="x", ylabel="y", ylim=(1, 0), aspect="equal")
    _sizes(axes["sizes"], cxcywh_rel[:, 2:], np.zeros((0, 2)) if anchors_rel is None else anchors_rel)
    axes["pictures"].set_title(f"labels in a picture ({len(sizes_wh)} readable pictures)")
    axes["pictures"].set(xlabel=_size_text(sizes_wh), ylabel="pictures")
    if len(per_image):
        step = int(per_image.max()) // _MOST_BARS + 1  # whole numbers: bins between them would be empty or double
        axes["pictures"].hist(per_image, bins=np.arange(0, per_image.max() + step + 1, step) - 0.5, color="tab:blue")
    save(chart, path)


def _sizes(axis: Any, sizes_rel: NDArray[np.float64], anchors_rel: NDArray[np.float64]) -> None:
    """Widths and heights of boxes, up to the largest of nearly all of them, and the anchors."""
    usual = np.quantile(sizes_rel, _NEARLY_ALL, axis=0) if len(sizes_rel) else np.zeros(2)
    top = min(1.0, 1.05 * float(np.max([*usual, *anchors_rel.ravel(), _LEAST_RANGE])))
    _cloud(axis, sizes_rel, top)
    if len(anchors_rel):
        axis.plot(*np.minimum(anchors_rel, top).T, "+", color="tab:red", markersize=9, clip_on=False, label="anchors")
        axis.legend(loc="upper left", fontsize="small")
    axis.set_title("box sizes, parts of the picture")
    axis.set(xlabel="width", ylabel="height", xlim=(0, top), ylim=(0, top), aspect="equal")


def _cloud(axis: Any, points: NDArray[np.float64], top: float) -> None:
    """How many points lie where, from 0 to `top` in both directions."""
    if len(points):
        counts, x_edges, y_edges = np.histogram2d(points[:, 0], points[:, 1], _CELLS, [[0, top], [0, top]])
        axis.pcolormesh(x_edges, y_edges, np.log1p(counts.T), cmap="Blues")


def _class_bars(axis: Any, names: Sequence[str], class_counts: NDArray[np.int64]) -> None:
    order = np.argsort(-class_counts[: len(names)], kind="stable")[:_MOST_CLASSES]
    shown = f", the {len(order)} most frequent of {len(names)} classes" if len(order) < len(names) else ""
    axis.set_title(f"{int(class_counts.sum())} labels{shown}")
    bars = axis.bar(range(len(order)), class_counts[order], color="tab:blue")
    few = len(order) <= _FEW_CLASSES
    if few:
        axis.bar_label(bars)
        axis.margins(y=0.12)
    axis.set_xticks(
        range(len(order)), [names[i] for i in order], rotation=0 if few else 60, ha="center" if few else "right"
    )
    axis.set_xlim(-0.6, max(len(order), 1) - 0.4)


def _size_text(sizes_wh: NDArray[np.int64]) -> str:
    if not len(sizes_wh):
        return "labels"
    low, high = sizes_wh.min(axis=0), sizes_wh.max(axis=0)
    if (low == high).all():
        return f"labels\n(all pictures {low[0]}x{low[1]} px)"
    return f"labels\n(pictures {low[0]} to {high[0]} px wide, {low[1]} to {high[1]} px high)"

"""Charts: curves over confidence, confusion matrix, quality against latency, labels of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.doctor import DatasetReport
from utils.plotting import figure, save

Floats = NDArray[np.float64]
_MOST_NAMED = 20
_MOST_NUMBERED = 30


def plot_curve(
    path: str | Path, x: Floats, values: Floats, names: Sequence[str], *, x_label: str, y_label: str
) -> None:
    """Plot a thin line per class and a thick one for their mean.

    The legend names the classes if there are few, and the best point of the mean.
    values: (classes, x); NaN rows are left out.
    """
    chart = figure(8.5, 5.5, edges_in=(0.7, 0.6, 2.2, 0.4))
    axis = chart.add_subplot()
    present = np.flatnonzero(~np.isnan(values).any(axis=1))
    few = len(present) <= _MOST_NAMED
    for i in present.tolist() if len(present) > 1 else ():
        axis.plot(x, values[i], linewidth=1, alpha=0.9 if few else 0.35, color=None if few else "tab:gray",
                  label=names[i] if few else None)  # fmt: skip
    if len(present):
        mean = values[present].mean(axis=0)
        label = names[present[0]] if len(present) == 1 else f"mean of {len(present)} classes"
        axis.plot(x, mean, linewidth=3, color="black", label=label)
        if y_label == "F1":
            best = int(mean.argmax())
            axis.axvline(x[best], color="black", linewidth=1, linestyle=":")
            axis.set_title(f"best mean F1 {mean[best]:.2f} at confidence {x[best]:.3f}")
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axis.set(xlabel=x_label, ylabel=y_label, xlim=(0, 1), ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    save(chart, path)


def plot_confusion(path: str | Path, matrix: NDArray[np.int64], names: Sequence[str]) -> None:
    """Plot predicted against ground-truth classes; the last ones are background, shades are fractions of the ground truth.

    If there are many classes, only those that occur are drawn.
    """
    labels = [*names, "background"][: len(matrix)]
    shown = np.flatnonzero((matrix.sum(axis=0) > 0) | (matrix.sum(axis=1) > 0))
    if len(labels) <= _MOST_NUMBERED:
        shown = np.arange(len(labels))
    counts = matrix[np.ix_(shown, shown)]
    share = counts / np.maximum(counts.sum(axis=0, keepdims=True), 1)
    side = float(np.clip(1.5 + 0.2 * len(shown), 4, 18))
    room = 0.6 + 0.09 * max(len(labels[i]) for i in shown) if len(shown) else 1.0
    chart = figure(side + room + 0.2, side + room + 0.4, edges_in=(room, room, 0.2, 0.4))
    axis = chart.add_subplot()
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(shown)), [labels[i] for i in shown], rotation=90)
    axis.set_yticks(range(len(shown)), [labels[i] for i in shown])
    axis.set(xlabel="ground truth", ylabel="predicted", title="confusion matrix, shaded by column")
    if len(shown) <= _MOST_NUMBERED:
        _numbers(axis, counts, share)
    save(chart, path, 100)


def _numbers(axis: Any, counts: NDArray[np.int64], share: Floats) -> None:
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if share[row, column] > 0.5 else "black"
        axis.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)


def plot_study(path: str | Path, rows: Sequence[dict[str, Any]]) -> None:
    """Plot AP against latency, with a line per confidence threshold and a point per input size.

    rows: `size`, `conf_thres`, `ap`, `ap50` (in [0, 1]) and `ms` (per image).
    """
    chart = figure(12, 5, edges_in=(0.7, 0.6, 0.2, 0.4))
    axes = chart.subplots(1, 2)
    for axis, key, title in zip(axes, ("ap", "ap50"), ("AP@.50:.95", "AP@.50"), strict=True):
        for threshold in sorted({row["conf_thres"] for row in rows}):
            own = sorted((row for row in rows if row["conf_thres"] == threshold), key=lambda row: row["size"])
            axis.plot([row["ms"] for row in own], [100 * row[key] for row in own], marker="o", label=f"{threshold:g}")
            for row in own:
                axis.annotate(row["size"], (row["ms"], 100 * row[key]), textcoords="offset points", xytext=(4, 4))
        axis.set(xlabel="inference and NMS, ms per image", ylabel=f"COCO {title}, %")
        axis.grid(alpha=0.3)
        axis.legend(title="confidence threshold", frameon=False)
    save(chart, path)


_MOST_CLASSES = 40
_FEW_CLASSES = 8
_MOST_BARS = 40
_CELLS = 50
_NEARLY_ALL = 0.999
_LEAST_RANGE = 0.05


def plot_labels(path: str | Path, checked: DatasetReport, anchors_rel: NDArray[np.float64] | None = None) -> None:
    """Plot labels per class, box centres and sizes, and labels per image in one chart.

    anchors_rel: (n, 2), width and height of anchors relative to the network's input, drawn over the box sizes.
    Raises InputError if matplotlib is not installed, RunError if `path` cannot be written.
    """
    chart = figure(12, 8.5, edges_in=(0.7, 0.8, 0.3, 0.4))
    axes = chart.subplot_mosaic([["classes", "classes", "classes"], ["centres", "sizes", "images"]])
    chart.subplots_adjust(hspace=0.5, wspace=0.25)
    _class_bars(axes["classes"], checked.names, checked.class_counts)
    axes["centres"].set_title("box centres, relative to the image")
    _cloud(axes["centres"], checked.cxcywh_rel[:, :2], 1.0)
    axes["centres"].set(xlabel="x", ylabel="y", ylim=(1, 0), aspect="equal")
    _sizes(axes["sizes"], checked.cxcywh_rel[:, 2:], np.zeros((0, 2)) if anchors_rel is None else anchors_rel)
    axes["images"].set_title(f"labels per image ({len(checked.sizes_wh)} readable images)")
    axes["images"].set(xlabel=_size_text(checked.sizes_wh), ylabel="images")
    most = int(checked.per_image.max())
    step = most // _MOST_BARS + 1  # an integer, so that every bin covers the same number of counts
    axes["images"].hist(checked.per_image, bins=np.arange(0, most + step + 1, step) - 0.5, color="tab:blue")
    save(chart, path)


def _sizes(axis: Any, sizes_rel: NDArray[np.float64], anchors_rel: NDArray[np.float64]) -> None:
    """Plot widths and heights of boxes, without the few largest, and the anchors."""
    usual = np.quantile(sizes_rel, _NEARLY_ALL, axis=0) if len(sizes_rel) else np.zeros(2)
    top = min(1.0, 1.05 * float(np.max([*usual, *anchors_rel.ravel(), _LEAST_RANGE])))
    _cloud(axis, sizes_rel, top)
    if len(anchors_rel):
        axis.plot(*np.minimum(anchors_rel, top).T, "+", color="tab:red", markersize=9, clip_on=False, label="anchors")
        axis.legend(loc="upper left", fontsize="small")
    axis.set_title("box sizes, relative to the image")
    axis.set(xlabel="width", ylabel="height", xlim=(0, top), ylim=(0, top), aspect="equal")


def _cloud(axis: Any, points: NDArray[np.float64], top: float) -> None:
    """Plot the density of points, from 0 to `top` in both directions."""
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
        return f"labels\n(all images {low[0]}x{low[1]} px)"
    return f"labels\n(images {low[0]} to {high[0]} px wide, {low[1]} to {high[1]} px high)"

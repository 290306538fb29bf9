"""Charts of a training run: results.png, and chart.png like the original's. matplotlib is only imported to draw one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.history import TrainingHistory
from utils.plotting import figure, save

_LOSS = "loss"
_NOT_DRAWN = {"iteration", "average_loss", "width", "height"}
_TITLES = {"rate": "learning rate", "images_per_second": "images per second"}
_COLUMNS = 4
_STEEP = 20.0  # a loss whose maximum exceeds its minimum by this factor gets a logarithmic axis
_FEW = 100  # up to this many points, each gets a marker


def write_chart(history: TrainingHistory, path: str | Path, *, max_batches: int, max_loss: float, metric: str) -> None:
    """Write chart.png: the average loss, clipped at `max_loss` once it falls below, and the metric, over all iterations."""
    chart = figure(10, 10)
    axes = chart.add_subplot()
    x, loss = history.series("average_loss")
    if loss and min(loss) > max_loss:
        max_loss = 1.05 * max(loss)
    size = 2 if len(x) >= _FEW else 5
    axes.plot(x, [min(value, max_loss) for value in loss], ".", markersize=size, color="tab:blue", clip_on=False)
    clipped = f", clipped at {max_loss:g}" if loss and max(loss) > max_loss else ""
    axes.set(xlim=(0, max_batches), ylim=(0, max_loss), xlabel="iteration")
    axes.set_ylabel(f"average loss{clipped}", color="tab:blue")
    axes.grid(alpha=0.4)
    axes.locator_params(axis="x", integer=True)
    x, values = history.series(metric)
    title = f"iteration {int(history.rows[-1]['iteration'])} of {max_batches}" if history.rows else ""
    if loss:
        title += f", average loss {loss[-1]:.4f}"
    if values:
        right = axes.twinx()
        right.plot(x, [100 * value for value in values], "o-", color="tab:red", markersize=3, clip_on=False)
        right.set(ylim=(0, 100))
        right.set_ylabel(f"{metric}, %", color="tab:red")
        title += f", {metric} {100 * values[-1]:.2f} %, best {100 * max(values):.2f} %"
    axes.set_title(title)
    save(chart, path)


def write_results(history: TrainingHistory, path: str | Path) -> None:
    """Write results.png: a small chart for each column of results.csv.

    Losses that fall steeply get a logarithmic axis; metrics get an axis from 0 to 1.
    """
    names = [name for name in history.names if name not in _NOT_DRAWN]
    rows = -(-len(names) // _COLUMNS)
    chart = figure(4 * _COLUMNS, 3.2 * rows, edges_in=(0.7, 0.6, 0.3, 0.4))
    chart.subplots_adjust(hspace=0.35, wspace=0.28)
    last = history.rows[-1]["iteration"] if history.rows else 1
    for place, name in enumerate(names, start=1):
        axes = chart.add_subplot(rows, _COLUMNS, place)
        _draw(axes, history, name)
        axes.set(title=_TITLES.get(name, name), xlim=(0, last))
        axes.locator_params(axis="x", integer=True)
        axes.grid(alpha=0.4)
        if place > len(names) - _COLUMNS:
            axes.set_xlabel("iteration")
    save(chart, path)


def _draw(axes: Any, history: TrainingHistory, name: str) -> None:
    x, values = history.series(name)
    size = 9 if len(x) == 1 else 6
    axes.plot(
        x, values, ".-" if len(x) < _FEW else "-", linewidth=1, markersize=size, clip_on=name not in history.metrics
    )
    if name == _LOSS:
        axes.plot(*history.series("average_loss"), linewidth=1.5, label="average")
        axes.legend(frameon=False)
    if name in history.metrics:
        axes.set_ylim(0, 1)
    elif name.startswith(_LOSS) and values and min(values) > 0 and max(values) > _STEEP * min(values):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)

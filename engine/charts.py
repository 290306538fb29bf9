"""Pictures of a training: results.png, and chart.png in the manner of the original. matplotlib is loaded when one is drawn."""

from __future__ import annotations

from pathlib import Path

from engine.history import History
from utils.plotting import figure, save

_FIXED = {"iteration", "loss", "width", "height"}


def write_chart(history: History, path: str | Path, *, max_batches: int, max_loss: float, metric: str) -> None:
    """Average loss, cut off at `max_loss`, and the metric where it was measured, over all iterations of the training."""
    chart = figure(10, 10)
    axes = chart.add_subplot()
    x, loss = history.series("average_loss")
    axes.plot(x, [min(value, max_loss) for value in loss], ".", markersize=2, color="tab:blue", label="average loss")
    axes.set(xlim=(0, max_batches), ylim=(0, max_loss), xlabel="iteration", ylabel="average loss")
    axes.grid(alpha=0.4)
    x, values = history.series(metric)
    if values:
        right = axes.twinx()
        right.plot(x, [100 * value for value in values], "o-", color="tab:red", markersize=3)
        right.set(ylim=(0, 100), ylabel=f"{metric}, % (best {100 * max(values):.2f})")
    if loss:
        axes.set_title(f"iteration {int(history.rows[-1]['iteration'])} of {max_batches}, average loss {loss[-1]:.4f}")
    save(chart, path)


def write_results(history: History, path: str | Path) -> None:
    """Every column of results.csv over the iterations, one small chart each."""
    names = [name for name in history.names if name not in _FIXED]
    rows = (len(names) + 3) // 4
    chart = figure(16, 3.2 * rows)
    for place, name in enumerate(names, start=1):
        axes = chart.add_subplot(rows, 4, place)
        x, values = history.series(name)
        axes.plot(x, values, ".-" if len(x) < 100 else "-", linewidth=1)
        axes.set_title(name)
        axes.grid(alpha=0.4)
    save(chart, path)

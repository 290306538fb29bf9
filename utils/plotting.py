"""Matplotlib figures that need no display; matplotlib is imported on first use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from utils.errors import InputError
from utils.files import atomic_write


def figure(width_in: float, height_in: float, *, edges_in: tuple[float, float, float, float] | None = None) -> Any:
    """Return a matplotlib Figure of a size in inches. Raises InputError if matplotlib is not installed.

    edges_in: left, bottom, right and top margins in inches. Fixed margins are drawn several times faster than
        matplotlib's automatic layout.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("plots need matplotlib: pip install matplotlib") from None
    chart = Figure(figsize=(width_in, height_in), layout=None if edges_in else "constrained")
    FigureCanvasAgg(chart)
    if edges_in:
        left, bottom, right, top = edges_in
        chart.subplots_adjust(
            left=left / width_in, bottom=bottom / height_in, right=1 - right / width_in, top=1 - top / height_in
        )
    return chart


def save(chart: Any, path: str | Path, dots_per_inch: int = 120) -> None:
    """Write a figure atomically, as JPEG or PNG depending on the suffix."""
    kind = "jpeg" if Path(path).suffix in {".jpg", ".jpeg"} else "png"
    with atomic_write(path) as stream:
        chart.savefig(stream, format=kind, dpi=dots_per_inch)

"""Figures without a screen: matplotlib is loaded only when something is drawn, and needs no window system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from utils.errors import InputError
from utils.files import atomic_write


def figure(width_in: float, height_in: float, *, edges_in: tuple[float, float, float, float] | None = None) -> Any:
    """A matplotlib Figure of that many inches. Raises InputError when matplotlib is not installed.

    edges_in: room in inches left, below, right and above for texts. It makes drawing several times faster than
    without, where matplotlib finds the room itself.
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
    """Write a figure, whole or not at all: as JPEG where the name says so, else as PNG."""
    kind = "jpeg" if Path(path).suffix in {".jpg", ".jpeg"} else "png"
    with atomic_write(path) as stream:
        chart.savefig(stream, format=kind, dpi=dots_per_inch)

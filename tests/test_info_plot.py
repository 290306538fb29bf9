"""info.py --plot: the image, and what stands beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from info import main
from tests.paths import REPOSITORY


def test_plot_and_measurements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    names = [str(REPOSITORY / "cfg" / f"{name}.cfg") for name in ("densenet40", "densenet40-osa")]
    assert main(["--cfg", *names, "--plot", str(tmp_path / "layers.png"), "--device", "cpu"]) == 0
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")
    text = capsys.readouterr().out
    for part in ("CIO 3.01 M", "MAC 3.68 M, at least", "MAC 2.54 M", "peak activation memory", "GFLOP/s", "energy"):
        assert part in text

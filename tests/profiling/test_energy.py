"""RAPL's files: found, summed, carried over a wrap, and absent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from profiling.energy import energy_counter

CPU = torch.device("cpu")


def _package(folder: Path, number: int, value: int) -> Path:
    package = folder / f"intel-rapl:{number}"
    package.mkdir(parents=True, exist_ok=True)
    (package / "max_energy_range_uj").write_text("1000000\n")
    (package / "energy_uj").write_text(f"{value}\n")
    return package / "energy_uj"


def test_packages_are_summed_and_wraps_carried(tmp_path: Path) -> None:
    first, second = _package(tmp_path, 0, 900_000), _package(tmp_path, 1, 100_000)
    (tmp_path / "intel-rapl:0:0").mkdir()  # a part of package 0, counted in it
    counter = energy_counter(CPU, tmp_path)
    assert counter is not None
    assert counter.name == "RAPL"
    before = counter.joules()
    first.write_text("100000\n")
    second.write_text("150000\n")
    assert counter.joules() - before == pytest.approx(0.2 + 0.05)


@pytest.mark.parametrize("present", [False, True])
def test_no_counter(tmp_path: Path, present: bool) -> None:
    if present:
        (tmp_path / "intel-rapl:0").mkdir()  # without files that may be read
    assert energy_counter(CPU, tmp_path) is None
    assert energy_counter(torch.device("meta"), tmp_path) is None

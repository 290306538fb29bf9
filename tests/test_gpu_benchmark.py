"""A dry run of benchmarks/gpu.py on a CPU."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks import gpu


def test_dry_run(tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    arguments = ["--device", "cpu", "--no-tests", "--cfg", "yolov3-tiny-prn", "csppeleenet", "--out", str(report)]
    assert gpu.main([*arguments, "--minutes", "5"]) == 0
    text = report.read_text()
    assert "Dry run on a CPU" in text and "Failed" not in text
    assert "| yolov3-tiny-prn | 416 x 416 | 3.47 |" in text and "| 400 |" in text  # numbers in the papers
    assert "csppeleenet |" not in text  # has no boxes
    assert "| scenes | fp32 |" in text and "images/s" in text


def test_a_failing_section_does_not_end_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = gpu.Report(tmp_path / "report.md", time.monotonic() + 5)

    def fail() -> None:
        raise RuntimeError("no kernel image is available")

    report.section("One", 1, fail)
    report.section("Two", 60, fail)
    report.section("Three", 1, lambda: report.add("works"))
    text = (tmp_path / "report.md").read_text()
    assert "Failed: RuntimeError: no kernel image is available" in text
    assert "Not run: no time was left." in text and text.rstrip().endswith("works")

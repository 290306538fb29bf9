"""info.py as run by a user."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import info
from tests.paths import REPOSITORY, shared
from utils.cli import run_script

TINY = str(REPOSITORY / "cfg" / "yolov3-tiny-prn.cfg")


def test_one_file_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(info.main, ["--cfg", TINY]) == 0
    shown = capsys.readouterr().out
    assert "Total BFLOPS 3.467" in shown
    assert "   0 convolutional" in shown and "416 x 416 x   16" in shown
    assert "weights file 19," in shown


def test_json_of_several_files_with_a_bad_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.cfg"
    bad.write_text("[net]\nwidth=8\nheight=8\nchannels=3\n[convolutional]\nfilters=x\n")
    out = tmp_path / "out.json"
    assert run_script(info.main, ["--cfg", str(bad), TINY, "--json", str(out)]) == 2
    first, second = json.loads(out.read_text())
    assert first["cfg"] == str(bad) and "bad.cfg:6: [convolutional] filters" in first["error"]
    assert second["error"] is None and second["layers"][0]["type"] == "convolutional"
    assert second["layers"][0]["out"] == [416, 416, 16] and second["layers"][0]["params"] == 3 * 16 * 9 + 4 * 16
    total = second["total"]
    assert total["weights_bytes"] == 20 + 4 * total["params"]
    assert total["bflops"] == pytest.approx(sum(layer["bflops"] for layer in second["layers"]))
    shown = capsys.readouterr()
    assert "1 of 2 files could be read" in shown.out and "bad.cfg:6" in shown.err


def test_keys_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.cfg"
    path.write_text("[net]\nwidth=8\nheight=8\nchannels=3\noptimized_memory=1\n[conv]\nfilter=3\nsize=1\nsize=3\n")
    assert run_script(info.main, ["--cfg", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "a.cfg:5: [net] optimized_memory=1" in shown
    assert "unknown: " in shown and "a.cfg:7: [conv] filter=3" in shown
    assert "repeated: " in shown and "a.cfg:9: [conv] size=3" in shown


def test_every_published_cfg_in_one_call(tmp_path: Path) -> None:
    files = [str(path) for path in sorted(shared("zoo").rglob("*.cfg"))]
    run_script(info.main, ["--cfg", *files, "--json", str(tmp_path / "a.json")])
    results = json.loads((tmp_path / "a.json").read_text())
    assert [result["cfg"] for result in results] == files
    assert sum(result["error"] is None for result in results) >= 160


def test_plot_and_measurements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    names = [str(REPOSITORY / "cfg" / f"{name}.cfg") for name in ("densenet40", "densenet40-osa")]
    assert info.main(["--cfg", *names, "--plot", str(tmp_path / "layers.png"), "--device", "cpu"]) == 0
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")
    text = capsys.readouterr().out
    for part in ("CIO 3.01 M", "MAC 3.68 M, at least", "MAC 2.54 M", "peak activation memory", "GFLOP/s", "energy"):
        assert part in text


def test_memory_access_of_each_layer(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(info.main, ["--cfg", TINY]) == 0
    head, first, *_ = capsys.readouterr().out.splitlines()
    assert head.split()[-3:] == ["parameters", "MAC", "CIO"]
    side, weights = 416 * 416, 3 * 3 * 3 * 16
    counts = [weights + 4 * 16, side * (3 + 16) + weights, side * (3 + 16)]
    assert first.split()[-3:] == [f"{count:,}" for count in counts]


def test_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 12_300_000)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: 45_600_000)
    (line,) = info.gpu_memory(torch.device("cuda"))
    assert "12.3 MB in tensors, 45.6 MB reserved" in line
    assert info.gpu_memory(torch.device("cpu")) == []

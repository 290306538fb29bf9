"""Checkpoints: round trip, rejection of damaged and foreign files, and atomic writing."""

from __future__ import annotations

import dataclasses
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    random_state,
    require_cfg,
    restore_random_state,
    save_checkpoint,
)
from utils import cfg
from utils.errors import InputError, RunError

CFG = "[net]\nwidth=8\nheight=8\nchannels=3\n[convolutional]\nfilters=4\n"


def make(**changes: object) -> Checkpoint:
    values: dict[str, object] = {
        "cfg": CFG,
        "names": ["a", "b"],
        "model": {"w": torch.arange(5.0)},
        "optimizer": {"state": {0: {"update": torch.ones(5)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "iteration": 7,
        "seen": 28,
        "random": random_state(),
    }
    return Checkpoint(**(values | changes))  # type: ignore[arg-type]


def test_round_trip(tmp_path: Path) -> None:
    before = make(history={"average": 1.5, "rows": [{"iteration": 1.0}]}, loader={"seed": 3}, best=0.25)
    save_checkpoint(before, tmp_path / "last.pt")
    after = load_checkpoint(tmp_path / "last.pt")
    for item in dataclasses.fields(Checkpoint):
        if item.name not in ("model", "optimizer", "random"):
            assert getattr(after, item.name) == getattr(before, item.name), item.name
    assert torch.equal(after.model["w"], before.model["w"])
    assert torch.equal(after.optimizer["state"][0]["update"], torch.ones(5))


def test_random_generators_are_restored(tmp_path: Path) -> None:
    save_checkpoint(make(), tmp_path / "last.pt")
    expected = (random.random(), torch.rand(3).tolist())
    restore_random_state(load_checkpoint(tmp_path / "last.pt").random)
    assert (random.random(), torch.rand(3).tolist()) == expected


@pytest.mark.parametrize("part", [0.01, 0.3, 0.9, 0.999])
def test_a_file_cut_short_is_refused(tmp_path: Path, part: float) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(make(), path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(InputError, match=r"last\.pt"):
        load_checkpoint(path)


def test_a_flipped_byte_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(make(model={"w": torch.arange(5000.0)}), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(path)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"format": "x", "model": Harmful()}, "cannot be loaded safely"),
        ({"model": 1}, "not the checkpoint"),
        ([1, 2], "not the checkpoint"),
    ],
)
def test_other_pytorch_files_are_refused_and_run_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "other.pt")
    with pytest.raises(InputError, match=reason):
        load_checkpoint("other.pt")
    assert not Path("harm").exists()


def test_a_weights_file_is_not_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.weights"
    path.write_bytes(b"\0\0\0\0\2\0\0\0")
    with pytest.raises(InputError, match="not a checkpoint"):
        load_checkpoint(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_checkpoint(tmp_path / "absent.pt")


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (CFG, True),
        ("# a comment\n" + CFG.replace("=", " = "), True),
        (CFG.replace("filters=4", "filters=5"), False),
        (CFG + "[maxpool]\n", False),
    ],
)
def test_a_checkpoint_of_another_cfg_is_refused(text: str, fits: bool) -> None:
    if fits:
        require_cfg(make(), "last.pt", cfg.parse(text, "mine.cfg"))
    else:
        with pytest.raises(InputError, match=r"mine\.cfg.*last\.pt"):
            require_cfg(make(), "last.pt", cfg.parse(text, "mine.cfg"))


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(make(), path)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        save_checkpoint(make(iteration=8), path)
    assert load_checkpoint(path).iteration == 7
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


WRITER = """
import sys, torch
from training.checkpoint import Checkpoint, save_checkpoint
print("ready", flush=True)
for i in range(1, 100000):
    model = {"w": torch.full((200000,), float(i))}
    save_checkpoint(Checkpoint(cfg="", names=[], model=model, optimizer={}, iteration=i, seen=i), sys.argv[1])
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    for attempt in range(3):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        while not path.exists():
            time.sleep(0.01)
        time.sleep(0.03 * attempt)
        process.kill()
        process.wait()
        found = load_checkpoint(path)
        assert torch.equal(found.model["w"], torch.full((200000,), float(found.iteration)))

"""The commands of docs/tutorial.md, one after the other, as they stand there."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
from pathlib import Path

from tests.paths import REPOSITORY
from tests.test_docs import commands

LEFT_OUT = ("serve.py",)  # does not end; tests/serving runs it
NEEDS = {"export.py": ("onnx", "onnxruntime"), "test.py": ("matplotlib",)}


def test_every_command_of_the_tutorial_runs(tmp_path: Path) -> None:
    for path in REPOSITORY.iterdir():
        if path.name not in (".git", "runs"):
            (tmp_path / path.name).symlink_to(path)
    done = []
    for command in commands(REPOSITORY / "docs" / "tutorial.md"):
        _, *words = shlex.split(command)
        if words[0] in LEFT_OUT or not all(_installed(package) for package in NEEDS.get(words[0], ())):
            continue
        ended = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
        done.append(words[0])
    assert {"-m", "info.py", "train.py", "detect.py"} <= set(done)
    said = ("train/shapes/train_batch0.jpg", "train/shapes/opt.yaml", "detect/shapes/results.json")
    assert all((tmp_path / "runs" / name).is_file() for name in said)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None

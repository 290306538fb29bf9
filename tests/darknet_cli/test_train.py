"""Training in several processes, as `-gpus 0,1` starts them; here on the CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models.weights import read_header
from tests.darknet_cli.inputs import write_inputs
from tests.paths import REPOSITORY

SCRIPT = """
import sys
from darknet_cli.grammar import parse
from darknet_cli.train import start_processes
if __name__ == "__main__":
    sys.exit(start_processes(parse(sys.argv[1:]), 2))
"""


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    (tmp_path / "start.py").write_text(SCRIPT)
    words = ["detector", "train", "data/train.data", "cfg/train.cfg", "train.weights", "-dont_show", "-nogpu"]
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "start.py", *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "Learning Rate: 0.002, " in done.stdout  # detector.c: the rates of all GPUs add up
    assert done.stdout.count("mini_batch = 2, batch = 2") == 2
    assert " 12: " in done.stdout and ", 48 images, " in done.stdout
    with (tmp_path / "backup" / "train_final.weights").open("rb") as stream:
        assert read_header(stream, tmp_path).seen == 48

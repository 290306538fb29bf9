"""Training in several processes, as started by `-gpus 0,1` (here on the CPU), and the live chart."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import darknet
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


def test_live_chart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    received = bytearray()

    def watch() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                client = socket.create_connection(("127.0.0.1", port), timeout=60)
                break
            except OSError:
                time.sleep(0.02)
        while part := client.recv(65536):
            received.extend(part)

    client = threading.Thread(target=watch, daemon=True)
    client.start()
    words = ["detector", "train", "data/train.data", "cfg/train100.cfg", "train100.weights", "-dont_show"]
    assert darknet.main([*words, "-mjpeg_port", str(port)]) == 0
    client.join(60)
    head, _, rest = bytes(received).partition(b"--mjpegstream\r\n")
    assert head.endswith(b"boundary=mjpegstream\r\n\r\n")
    size = int(rest.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
    jpeg = rest.partition(b"\r\n\r\n")[2][:size]
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None and image.shape == (1000, 1000, 3)

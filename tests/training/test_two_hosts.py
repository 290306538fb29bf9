"""train.py with torchrun on two hosts, simulated by network namespaces: one is lost, the other continues."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import train
from tests.small_set import YOLO, two_boxes, write_set
from training.checkpoint import load_checkpoint
from utils.cli import EXIT_OK, run_script

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ("hosta", "hostb")
PORT = 29400
CFG = (
    """[net]
batch=8
width=32
height=32
channels=3
learning_rate=0.01
max_batches=400

[convolutional]
batch_normalize=1
filters=6
size=3
stride=2
pad=1
activation=leaky

[convolutional]
filters=14
size=1
stride=4
activation=linear
"""
    + YOLO
)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _can_make_hosts() -> bool:
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    name = f"cspyolo-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode == 0
    if made:
        ip("netns", "del", name)
    return made


class Hosts:
    """Two connected network namespaces that can resolve each other's names."""

    def __init__(self) -> None:
        self.names = [f"{name}-{os.getpid()}" for name in HOSTS]
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Hosts:
        addresses = [f"10.77.0.{number}" for number in range(1, 3)]
        for name, address in zip(self.names, addresses, strict=True):
            ip("netns", "add", name)
            folder = Path("/etc/netns") / name
            folder.mkdir(parents=True)
            lines = ["127.0.0.1 localhost", f"{address} {socket.gethostname()}"]
            lines += [f"{each} {host}" for each, host in zip(addresses, HOSTS, strict=True)]
            (folder / "hosts").write_text("\n".join(lines) + "\n")
        first, second = self.names
        ip("-n", first, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", second)
        for name, address in zip(self.names, addresses, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)

    def train(self, number: int, folder: Path, *flags: str) -> subprocess.Popen[bytes]:
        """Start torchrun on a host, with output to said<number>.txt."""
        settings = {
            "GLOO_SOCKET_IFNAME": "cable",
            "CSPYOLO_TIMEOUT": "6",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        command = ["ip", "netns", "exec", self.names[number], sys.executable, "-m", "torch.distributed.run"]
        command += ["--nnodes", "1:2", "--nproc-per-node", "1", "--max-restarts", "3", "--local-addr", HOSTS[number]]
        command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{HOSTS[0]}:{PORT}", "--rdzv-id", "job"]
        command += ["--rdzv-conf", "last_call_timeout=3,keep_alive_interval=1,keep_alive_max_attempt=3"]
        command += [str(ROOT / "train.py"), *flags]
        with (folder / f"said{number}.txt").open("wb") as said:
            process = subprocess.Popen(
                command, cwd=folder, env=os.environ | settings, stdout=said, stderr=said, start_new_session=True
            )
        self._running.append(process)
        return process

    def cut(self) -> None:
        """Cut the connection without notifying either host."""
        ip("-n", self.names[1], "link", "set", "cable", "down")


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if not _can_make_hosts():
        pytest.skip("needs the right to create network namespaces (root, and ip from iproute2)")
    with Hosts() as made:
        yield made


def weights(run: Path) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.fromfile(run / "weights" / "my_final.weights", np.float32, offset=20)


def wait_for(path: Path, pattern: str, seconds: float = 120) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        text = path.read_text(errors="replace") if path.exists() else ""
        if found := re.search(pattern, text):
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"{path}: no {pattern} in:\n{text[-3000:]}")


@pytest.mark.slow
def test_a_host_is_lost_and_the_other_goes_on(tmp_path: Path, hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["--cfg", "my.cfg", "--data", "my.data", "--workers", "0", "--no-plots", "--sync-bn", "--device", "cpu"]
    flags += ["--no-val", "--print", "darknet"]
    folders = []
    for name in (*HOSTS, "alone"):
        folders.append(folder := tmp_path / name)
        folder.mkdir()
        monkeypatch.chdir(folder)
        write_set(folder, ("cat", "dog"), lambda number: two_boxes(number, 2))
        (folder / "my.cfg").write_text(CFG)
        (folder / "my.data").write_text((folder / "my.data").read_text() + "savelast=10\n")
    assert run_script(train.main, flags) == EXIT_OK

    running = [hosts.train(n, folders[n], *flags, "--name", "exp", "--resume", "auto") for n in range(2)]
    said = [folder / f"said{n}.txt" for n, folder in enumerate(folders[:2])]
    wait_for(said[0], r"(?m)^ ?1\d\d: ")
    hosts.cut()
    resumed = int(wait_for(said[0], r"resuming from iteration (\d+)").split()[-1])
    assert running[0].wait(120) == EXIT_OK, said[0].read_text()
    before = max(int(n) for n in re.findall(r"(?m)^ ?(\d+): ", said[0].read_text().split("resuming from")[0]))
    assert before - resumed < 10
    run = folders[0] / "runs" / "train" / "exp"
    assert load_checkpoint(run / "weights" / "last.pt").iteration == 400
    np.testing.assert_allclose(weights(run), weights(folders[2] / "runs" / "train" / "exp"), rtol=0, atol=1e-4)

"""Fuzzing: a short campaign over every target finds nothing, and every kind of violation is detected."""

# ruff: noqa: E402, the packages that fuzzing needs are optional

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.paths import REPOSITORY
from utils.errors import InputError

if sys.platform != "linux":
    pytest.skip("processes are watched through /proc", allow_module_level=True)
for module in ("albumentations", "onnx", "onnxruntime", "openvino", "safetensors", "starlette", "uvicorn", "yaml"):
    pytest.importorskip(module)

from benchmarks import fuzz
from benchmarks.fuzz import Campaign, parse_arguments
from benchmarks.fuzz_targets import TARGETS, Target


@pytest.mark.slow
def test_a_short_campaign_finds_nothing(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.fuzz",
        "--count",
        "6",
        "--minutes",
        "20",
        "--seed",
        "7",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    counts = json.loads((tmp_path / "counts-7.json").read_text())
    assert {name: each["next"] for name, each in counts.items()} == dict.fromkeys(TARGETS, 6)


def unsafe_c_write() -> None:
    """Write outside the sandbox from C, which Python does not notice."""
    os.chdir("..")
    library = __import__("ctypes").CDLL(None)
    library.creat(b"canary", 0o600)


def allocate() -> None:
    bytearray(3 << 30)


def swallow() -> None:
    raise InputError("no such thing")


NOTICED: dict[str, tuple[Callable[[], object], str]] = {
    "another exception": (lambda: {}["a"], "KeyError"),
    "an error without a message": (lambda: (_ for _ in ()).throw(InputError("")), "AssertionError"),
    "memory": (allocate, "MemoryError"),
    "a loop": (lambda: [None for _ in iter(int, 1)], "Hang: more than 0.5 s of processor time"),
    "a crash": (os.abort, f"crash: -{signal.SIGABRT.value}"),
    "an exit": (lambda: os._exit(5), "crash: 5"),
    "a program": (lambda: os.system("touch ../canary"), "Forbidden: executes: os.system"),
    "another program": (lambda: subprocess.run(["touch", "../canary"]), "Forbidden: executes: subprocess.Popen"),
    "a file outside": (lambda: Path("../outside/x").write_text("x"), "Forbidden: writes outside: open ../outside/x"),
    "a folder outside": (lambda: Path("../x").mkdir(), "Forbidden: writes outside: os.mkdir ../x"),
    "a removed file": (lambda: Path("../seeds").rename("mine"), "Forbidden: writes outside: os.rename ../seeds"),
    "a file written by a library": (unsafe_c_write, "Forbidden: writes outside: canary"),
    "a pickle": (lambda: __import__("pickle").loads(b"cos\nsystem\n."), "Forbidden: unpickles: os.system"),
    "all disks": (lambda: next(Path("/").iterdir()), "PermissionError"),
    "a connection": (lambda: socket.create_connection(("192.0.2.1", 9), 1), "Forbidden: connects: 192.0.2.1"),
}


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], Campaign]:
    """Returns a function that runs a campaign with one target, which does the same for each of its three inputs."""
    monkeypatch.chdir(tmp_path)

    def run(act: Callable[[], object], **settings: bool) -> Campaign:
        limits = {"seconds": 0.5, "memory_mib": 512}
        target = Target(name="bad", make=lambda *_: (), run=act, **limits, **settings)  # type: ignore[arg-type]
        found = Campaign([target], 1, tmp_path / "out", tmp_path / "work")
        (tmp_path / "work" / "seeds").mkdir(exist_ok=True)
        found.run(seconds=100, count=3)
        os.chdir(tmp_path)
        return found

    return run


@pytest.mark.parametrize(("act", "signature"), NOTICED.values(), ids=NOTICED)
def test_violations_are_detected(
    act: Callable[[], object], signature: str, campaign: Callable[[Callable[[], object]], Campaign], tmp_path: Path
) -> None:
    found = campaign(act)
    ((what, count),) = found.counts["bad"].findings.items()
    assert what.startswith(signature) and count == found.counts["bad"].next == 3
    assert (tmp_path / "out" / "findings" / "bad-1-0" / "FINDING.txt").read_text()
    assert not (tmp_path / "work" / "canary").exists() and (tmp_path / "work" / "seeds").is_dir()


@pytest.mark.parametrize(
    "act",
    [
        lambda: Path("../x").mkdir(),
        lambda: Path("/x").write_text("x"),
        lambda: socket.create_connection(("192.0.2.1", 9)),
    ],
)
def test_forbidden_requests_of_a_command_line_fail(
    act: Callable[[], object], campaign: Callable[..., Campaign]
) -> None:
    """Such a command line names the folder or address itself, so the access only fails, with the usual error."""
    ((what, count),) = campaign(act, is_command=True).counts["bad"].findings.items()
    assert what.startswith(("PermissionError", "OSError")) and count == 3


def test_an_input_that_hangs(
    campaign: Callable[[Callable[[], object]], Campaign], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "STUCK_S", 0.3)
    assert campaign(lambda: time.sleep(100)).counts["bad"].findings == {"hang: waits without end": 3}


def test_our_own_errors_are_not_findings(campaign: Callable[[Callable[[], object]], Campaign]) -> None:
    count = campaign(swallow).counts["bad"]
    assert (count.refused, count.accepted, count.findings) == (3, 0, {})
    count = campaign(lambda: None).counts["bad"]
    assert (count.refused, count.accepted, count.next) == (3, 3, 6), "a campaign continues where it stopped"


def test_inputs_follow_from_target_seed_and_number(tmp_path: Path) -> None:
    seeds = tmp_path / "seeds" / "base"
    seeds.mkdir(parents=True)
    (seeds / "my.names").write_text("cat\ndog\n")
    made = []
    for number, seed in ((1, 1), (1, 1), (2, 1), (1, 2)):
        draw = fuzz.draw_of(TARGETS["names"], seed, number)
        TARGETS["names"].make(draw, tmp_path / "seeds", tmp_path)
        made.append((tmp_path / "my.names").read_bytes())
    assert made[0] == made[1] and len(set(made)) == 3


def test_flags() -> None:
    options = parse_arguments(["--target", "cfg", "onnx", "--seed", "3"])
    assert (options.target, options.seed, options.count) == (("cfg", "onnx"), 3, None)

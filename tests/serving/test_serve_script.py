"""serve.py as run by a user."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks.serving as load
import convert
import export
import serve
from tests.paths import REPOSITORY
from tests.serving.server import ask, told
from tests.small_model import make_small_model
from utils.cli import run_script

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
from serving.server import allowed_hosts, is_local


def flags(folder: Path) -> list[str]:
    cfg, weights, names = make_small_model(folder)
    return ["--cfg", str(cfg), "--weights", str(weights), "--names", str(names), "--port", "0", "--device", "cpu"]


@pytest.mark.parametrize("suffix", [".weights", ".pt", ".onnx"])
def test_from_start_to_ctrl_c(tmp_path: Path, suffix: str) -> None:
    given = flags(tmp_path)
    if suffix != ".weights":  # contains cfg and names
        path = str(tmp_path / f"small{suffix}")
        if suffix == ".pt":
            assert run_script(convert.main, ["weights", *given[:6], "--out", path]) == 0
        else:
            pytest.importorskip("onnxruntime")
            pytest.importorskip("onnx")
            assert run_script(export.main, [*given[:6], "--out", path.removesuffix(suffix)]) == 0
        given = ["--weights", path, *given[6:]]
    command = [sys.executable, "serve.py", *given]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found and re.search(r" on cpu with (ONNX Runtime|OpenVINO|PyTorch), (fp32|as exported): ", line)
        assert told(ask(int(found[1]), "GET", "/model")[2])["classes"] == ["cat", "dog"]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


def test_a_port_in_use_is_a_failed_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run_script(serve.main, [*flags(tmp_path)[:-3], port, "--device", "cpu"]) == 1
    assert f"127.0.0.1:{port}: cannot listen" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["--cfg", "a.cfg"], "--weights is required"),
        (["--cfg", "a.cfg", "--weights", "a.weights"], "a.weights: cannot be read: No such file"),
    ],
)
def test_bad_flags(given: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(serve.main, given) == 2
    assert text in capsys.readouterr().err


def test_only_this_machine_is_served_unless_asked() -> None:
    assert serve.parse_arguments([]).host == "127.0.0.1"
    assert [is_local(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "::", "example.org")] == [
        True
    ] * 3 + [False] * 3
    assert "localhost" in allowed_hosts("127.0.0.1") and allowed_hosts("0.0.0.0") == ("*",)


def test_where_the_token_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def token(*given: str) -> str | None:
        return serve.token_of(serve.parse_arguments(given))

    (tmp_path / "token").write_text("of-a-file-of-mine\n")
    assert token() is None
    monkeypatch.setenv("CSPYOLO_TOKEN", "of-the-environment")
    assert token() == "of-the-environment"
    assert "CSPYOLO_TOKEN" not in os.environ  # decoding processes must not inherit it
    assert token("--token", "of-the-command-line") == "of-the-command-line"
    assert token("--token-file", str(tmp_path / "token")) == "of-a-file-of-mine"


@pytest.mark.parametrize(
    ("given", "environment", "text"),
    [
        (["--token", "short"], None, "--token: expected at least 16 letters, digits"),
        (["--token", "a token with blanks"], None, "--token: expected"),
        ([], "", "CSPYOLO_TOKEN: expected"),
        (["--token-file", "no-such-file"], None, "no-such-file: no such token file"),
        (["--token-file", "a", "--token", "b"], None, "--token-file and --token cannot be combined"),
    ],
)
def test_bad_tokens(
    given: list[str],
    environment: str | None,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if environment is not None:
        monkeypatch.setenv("CSPYOLO_TOKEN", environment)
    assert run_script(serve.main, given) == 2
    assert text in capsys.readouterr().err


def test_a_warning_without_a_token(caplog: pytest.LogCaptureFixture) -> None:
    bad_model = ["--cfg", "a.cfg", "--weights", "a.weights"]
    for given, warns in (
        ([], False),
        (["--host", "0.0.0.0"], True),
        (["--host", "0.0.0.0", "--token", "x" * 16], False),
    ):
        caplog.clear()
        assert run_script(serve.main, [*bad_model, *given]) == 2
        assert ("everyone who can reach this address" in caplog.text) is warns


def test_under_load(capsys: pytest.CaptureFixture[str]) -> None:
    """A short version of the benchmark in docs/reliability.md: all answers are right, whatever happens."""
    assert run_script(load.main, ["--requests", "300", "--clients", "20", "--img-size", "64"]) == 0
    table = capsys.readouterr().out
    assert "| answers | 300 |" in table and "| wrong or mixed-up answers | 0 |" in table
    assert re.search(r"bomb: PNG of 12000x12000: 422", table) and re.search(r"upload broken off: done", table)

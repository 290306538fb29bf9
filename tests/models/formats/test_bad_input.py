"""Failures as a user sees them: exit code, a one-line message, nothing executed, no incomplete files."""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import convert
import detect
import export
from models.formats.files import load_model
from models.network import Network
from models.plan import read_plan
from tests.paths import REFERENCE
from tests.recipe import weights_file
from utils.cli import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_OK, run_script
from utils.errors import InputError

CFG = REFERENCE / "cfg" / "yolo_basic.cfg"
ROOM = 1000  # maximum size of a file on the full disk, in bytes

Main = Callable[[Sequence[str] | None], int]


@contextmanager
def full_disk() -> Iterator[None]:
    """Make writing more than ROOM bytes to a file fail as on a full disk, in Python and in native libraries."""
    resource = pytest.importorskip("resource", reason="limits of files are POSIX")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def needed(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs the package {package}")


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights file in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.weights"
    path.write_bytes(weights_file(Network(read_plan(CFG)).tensors(), 7))
    assert path.stat().st_size > 2 * ROOM
    return path


def test_size_that_contradicts_the_model(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needed("onnx", "onnxruntime")
    assert run_script(export.main, ["--cfg", str(CFG), "--weights", str(weights)]) == EXIT_OK
    flags = ["--weights", "a.onnx", "--img-size", "640", "--source", "x.png"]
    assert run_script(detect.main, flags) == EXIT_BAD_INPUT
    assert "it cannot run at 640x640" in capsys.readouterr().err


@pytest.mark.parametrize(("out", "packages"), [("b.weights", []), ("b.pt", []), ("b.safetensors", ["safetensors"])])
@pytest.mark.parametrize("command", ["weights", "fold", "partial"])
def test_disk_full_while_converting(
    command: str, out: str, packages: list[str], weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needed(*packages)
    more = {"weights": [], "fold": ["--out-cfg", "b.cfg"], "partial": ["--layers", "3"]}[command]
    flags = [command, "--cfg", str(CFG), "--weights", str(weights), "--out", out, *more]
    fails_and_leaves_no_rest(convert.main, flags, out, capsys)


@pytest.mark.parametrize(
    ("kind", "out", "packages"),
    [
        ("onnx", "a.onnx", ["onnx", "onnxruntime"]),
        ("openvino", "a.xml", ["onnx", "openvino"]),
        ("torchscript", "a.torchscript", []),
    ],
)
def test_disk_full_while_exporting(
    kind: str, out: str, packages: list[str], weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needed(*packages)
    flags = ["--cfg", str(CFG), "--weights", str(weights), "--include", kind, "--out", "a"]
    fails_and_leaves_no_rest(export.main, flags, out, capsys)


def fails_and_leaves_no_rest(main: Main, flags: list[str], out: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(out).write_bytes(b"what was there before")
    before = {path.name: path.read_bytes() for path in Path.cwd().iterdir()}
    with full_disk():
        assert run_script(main, flags) == EXIT_FAILED
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"failed: {out}: ")
    assert {path.name: path.read_bytes() for path in Path.cwd().iterdir()} == before


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_compressed_as_pytorch_never_does(packing: int, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("archive/data.pkl", bytes(99))
    path.write_bytes(path.read_bytes().replace(bytes(4), b"abcd", 1))
    with pytest.raises(InputError, match=r"a\.pt: the .* is truncated or damaged"):
        load_model(path)

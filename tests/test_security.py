"""No input makes the program run code from a file, or open a connection that was not requested. See SECURITY.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cspyolo import YOLO
from cspyolo.__main__ import main
from tests.paths import REPOSITORY
from tests.small_model import make_small_model
from tests.small_set import two_boxes, write_set
from utils.errors import InputError


class Harm:
    """An object whose pickle creates a file when loaded."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, ("harm", "w"))


ENTRIES = {
    "detect": "detect --cfg small.cfg --weights {0} --source 0.png",
    "test": "test --cfg small.cfg --weights {0} --data my.data",
    "train": "train --cfg small.cfg --data my.data --iterations 1 --weights {0}",
    "train --resume": "train --resume {0}",
    "info": "info --cfg small.cfg --weight-norms --weights {0}",
    "convert weights": "convert weights --cfg small.cfg --weights {0} --out b.safetensors",
    "convert partial": "convert partial --cfg small.cfg --weights {0} --layers 1 --out b.weights",
    "convert fold": "convert fold --cfg small.cfg --weights {0} --out b.weights --out-cfg b.cfg",
    "convert compare": "convert compare {0} small.weights --cfg small.cfg",
    "export": "export --cfg small.cfg --weights {0}",
    "serve": "serve --cfg small.cfg --weights {0} --port 0",
    "darknet": "darknet detector test my.data small.cfg {0} 0.png -dont_show",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a data set and a model."""
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path, ("cat", "dog"), lambda number: two_boxes(number, 2))
    make_small_model(tmp_path)
    return tmp_path


@pytest.mark.parametrize("suffix", [".pt", ".weights", ".safetensors", ".torchscript", ".onnx", "-old.pt"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_pickle_with_code_is_refused(
    entry: str, suffix: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "serve" in entry:
        pytest.importorskip("starlette")
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime")
    name, before = f"evil{suffix}", {*folder.iterdir()}
    torch.save({"model": Harm()}, name, _use_new_zipfile_serialization="old" not in suffix)
    assert main(ENTRIES[entry].format(name).split()) in (1, 2)
    errors = capsys.readouterr().err
    assert name in errors and "Traceback" not in errors
    assert {*folder.iterdir()} - before <= {folder / name, folder / "runs"}


@pytest.mark.parametrize(
    "entry", [*ENTRIES, "convert labels", "detect --cfg", "detect --resume", "test --data", "export --cfg"]
)
def test_an_impossible_file_name(entry: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "serve" in entry:
        pytest.importorskip("starlette")
    more = {
        "convert labels": "convert labels --from {0} --to b.json",
        "detect --cfg": "detect --cfg {0} --weights small.weights --source 0.png",
        "detect --resume": "detect --cfg small.cfg --weights small.weights --source 0.png --resume {0}",
        "test --data": "test --cfg small.cfg --weights small.weights --data {0}",
        "export --cfg": "export --cfg {0} --weights small.weights",
    }
    assert main((ENTRIES | more)[entry].format("9" * 400).split()) in (1, 2)
    errors = capsys.readouterr().err
    assert "9" * 400 in errors and "Traceback" not in errors


def test_a_pickle_with_code_is_refused_from_python(folder: Path) -> None:
    torch.save({"model": Harm()}, "evil.pt")
    with pytest.raises(InputError, match=r"evil\.pt: cannot be loaded safely"):
        YOLO("evil.pt")
    assert not (folder / "harm").exists()


OFFLINE = """
import importlib.util, sys
asked = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        host = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
        host = host[0] if isinstance(host, tuple) else host
        if host not in ("127.0.0.1", "::1", "localhost") and not str(host).startswith("/"):
            asked.append((event, host))
            raise OSError(101, "Network is unreachable")
sys.addaudithook(watch)
from cspyolo.__main__ import main
small = "--cfg small.cfg --weights small.weights "
commands = [
    "detect " + small + "--names small.names --source list.txt --save-json",
    "train --cfg small.cfg --data my.data --iterations 1 --batch-size 2 --subdivisions 1 --workers 0 --albumentations augment.yaml",
    "test " + small + "--data my.data",
    "info --cfg small.cfg",
    "convert weights " + small + "--out small.pt",
    "convert labels --from my.data --to my.json",
    "export " + small + "--include torchscript --out small",
]
if importlib.util.find_spec("openvino") and importlib.util.find_spec("onnx"):
    commands += ["export " + small + "--include openvino --out small", "detect --weights small.xml --source 0.png"]
if importlib.util.find_spec("uvicorn"):
    import uvicorn
    uvicorn.Server.run = lambda self, sockets=None: None
    commands.append("serve " + small + "--port 0")
for command in commands:
    assert main(command.split()) == 0, command
assert not asked, asked
assert not sys.modules.get("openvino_telemetry"), "usage would be reported"
"""
AUGMENT = """transform:
  __class_fullname__: Compose
  p: 1.0
  bbox_params: null
  keypoint_params: null
  additional_targets: {}
  transforms:
  - __class_fullname__: ToGray
    p: 1.0
"""


@pytest.mark.slow
def test_nothing_is_sent_anywhere(folder: Path) -> None:
    (folder / "augment.yaml").write_text(AUGMENT)
    (folder / "my.data").write_text((folder / "my.data").read_text() + "backup=backup\n")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{OFFLINE}"],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]

"""Packaging, the command `cspyolo`, and the programs in examples/."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from cspyolo.__main__ import COMMANDS, main
from tests.paths import REPOSITORY
from utils.cfg import read
from utils.version import VERSION

SAMPLES = REPOSITORY / "data" / "samples"


def setup_module_of_the_build() -> dict[str, object]:
    """The functions of setup.py, without calling setup()."""
    tree = ast.parse((REPOSITORY / "setup.py").read_text())
    tree.body = [node for node in tree.body if not isinstance(node, ast.Expr) or isinstance(node.value, ast.Constant)]
    names: dict[str, object] = {}
    here = Path.cwd()
    os.chdir(REPOSITORY)
    try:
        exec(compile(tree, "setup.py", "exec"), names)
    finally:
        os.chdir(here)
    return names


@pytest.fixture(scope="module")
def build() -> dict[str, object]:
    pytest.importorskip("setuptools")
    return setup_module_of_the_build()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from models.plan import Plan\n", "from cspyolo.models.plan import Plan\n"),
        ("from utils import cfg as text\n", "from cspyolo.utils import cfg as text\n"),
        ("def f():\n    from data.image import a, b\n", "def f():\n    from cspyolo.data.image import a, b\n"),
        ("from data.image import (\n    a,\n)\n", "from cspyolo.data.image import (\n    a,\n)\n"),
        ("import detect\n", "from cspyolo import detect\n"),
        ("import utils.cfg as text\n", "from cspyolo.utils import cfg as text\n"),
        ("import torch\nfrom torch.utils import data\n", "import torch\nfrom torch.utils import data\n"),
        ("from cspyolo.results import Boxes\n", "from cspyolo.results import Boxes\n"),
        ('text = "from models import load"\n', 'text = "from models import load"\n'),
    ],
)
def test_imports_move_below_the_package(before: str, after: str, build: dict[str, object]) -> None:
    assert build["relocated"](before) == after


def test_an_import_that_cannot_move_stops_the_build(build: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"line 1: expected `from ... import ...`"):
        build["relocated"]("import models.plan\n")


def test_every_module_moves_and_every_package_is_listed(build: dict[str, object]) -> None:
    packages: dict[str, str] = build["packages"]()
    folders = {path.parent.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("*/**/*.py")}
    folders = {
        each
        for each in folders
        if each.split("/")[0] not in ("tests", "benchmarks", "docs", "examples") and each[0] != "."
    }
    assert folders - {"build"} <= set(packages.values())
    for folder in packages.values():
        for path in (REPOSITORY / folder).glob("*.py"):
            ast.parse(build["relocated"](path.read_text("utf-8")))


def test_commands_are_the_scripts() -> None:
    scripts = {path.stem for path in REPOSITORY.glob("*.py")} - {"setup", "hubconf"}
    assert scripts | {"compose"} == set(COMMANDS)
    assert all(importlib.util.find_spec(module) for module, _ in COMMANDS.values())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_version(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for flag, expected in (("--version", f"cspyolo {VERSION}"), ("--help", "usage:")):
        with pytest.raises(SystemExit) as ended:
            main([command, flag])
        assert ended.value.code == 0 and expected in capsys.readouterr().out


def test_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["detect", "--source", str(SAMPLES / "scene1.jpg"), "--project", "out"]) == 0
    assert (tmp_path / "out" / "exp" / "scene1.jpg").is_file()
    assert main(["info", "--cfg", "csppeleenet.cfg"]) == 0 and "BFLOP" in capsys.readouterr().out
    assert main(["detect", "--source", "nowhere.jpg"]) == 2
    with pytest.raises(SystemExit) as ended:
        main(["paint"])
    assert ended.value.code == 2


def test_the_command_darknet_yields_to_the_original(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PATH": str(tmp_path)}
    command = [
        sys.executable,
        "-c",
        "import sys; from cspyolo.__main__ import darknet; sys.exit(darknet())",
        "nonsense",
    ]
    ours = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ours.returncode == 1 and "nonsense" in ours.stderr + ours.stdout
    (tmp_path / "darknet").write_text("#!/bin/sh\necho original $1\nexit 7\n")
    (tmp_path / "darknet").chmod(0o755)
    theirs = subprocess.run(command, env=environment | {"PATH": f"{tmp_path}:/bin"}, capture_output=True, text=True)
    assert (theirs.returncode, theirs.stdout) == (7, "original nonsense\n")


def test_own_cfgs_are_found_by_name_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = read(REPOSITORY / "cfg" / "csppeleenet.cfg")
    assert [each.name for each in read("csppeleenet.cfg").sections] == [each.name for each in own.sections]
    (tmp_path / "csppeleenet.cfg").write_text("[net]\nwidth=8\n[empty]\n")
    assert len(read("csppeleenet.cfg").sections) == 2  # the user's own comes first


def run(*command: str, folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_example_of_a_video_loop(tmp_path: Path) -> None:
    run(
        str(REPOSITORY / "examples" / "video_loop.py"),
        str(SAMPLES / "scenes.mp4"),
        "--out",
        "boxes.mp4",
        folder=tmp_path,
    )
    video, source = (cv2.VideoCapture(str(path)) for path in (tmp_path / "boxes.mp4", SAMPLES / "scenes.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == source.get(cv2.CAP_PROP_FRAME_COUNT) > 0


def test_example_of_a_batch_job(tmp_path: Path) -> None:
    run(str(REPOSITORY / "examples" / "batch_job.py"), str(SAMPLES / "*.jpg"), "found.jsonl", folder=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [Path(row["path"]).name for row in rows] == sorted(path.name for path in SAMPLES.glob("*.jpg"))
    assert all(row["objects"] for row in rows)


def test_example_of_a_service() -> None:
    for package in ("fastapi", "python_multipart", "httpx"):
        pytest.importorskip(package)
    from fastapi.testclient import TestClient

    from examples.service import app

    client = TestClient(app)
    answer = client.post("/detect", files={"image": (SAMPLES / "scene1.jpg").read_bytes()})
    assert answer.status_code == 200 and answer.json()["objects"]
    assert client.post("/detect", files={"image": b"no image"}).status_code == 415


def test_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    notebook = json.loads((REPOSITORY / "examples" / "notebook.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 8 and not any(cell.get("outputs") for cell in notebook["cells"])
    (tmp_path / "notebook.py").write_text("\n\n".join(cells))
    run("notebook.py", folder=tmp_path)

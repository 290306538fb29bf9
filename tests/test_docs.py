"""README and docs: generated pages and images are up to date, commands parse, links and file names resolve."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from docs import cfg_reference, readme_image
from docs.examples import examples
from models.catalog import SECTIONS
from tests.paths import REPOSITORY
from utils.net_options import NET_AUDIENCES

PAGES = sorted([REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *(REPOSITORY / "docs").glob("*.md")])
SOURCES = [
    path
    for room in ("utils", "models", "data", "inference", "evaluation", "training")
    for path in (REPOSITORY / room).rglob("*.py")
]


def commands(page: Path) -> Iterator[str]:
    """Python commands of a page's ```sh blocks."""
    for example in examples(page):
        for part in example.command.split("&&") if example.kind == "sh" else ():
            if re.match(r"\s*((\S*/)?python3?|torchrun) ", part):
                yield re.sub(r"^torchrun .*?(?=\S+\.py)", "python ", part.strip(), flags=re.DOTALL)


COMMANDS = [(page.name, command) for page in PAGES for command in commands(page)]


def parsed(command: str) -> None:
    """Parse the flags of a command without running it. Raises SystemExit for a wrong flag."""
    _, script, *arguments = shlex.split(command, comments=True)
    if script == "-m":
        script, *arguments = arguments
        if script in ("pytest", "venv", "pip"):
            return
        found = importlib.util.find_spec(script)
        assert found is not None, f"no module {script}"
        script = f"{script}.__main__" if found.submodule_search_locations else script
    else:
        assert (REPOSITORY / script).is_file(), f"no script {script}"
        script = script.removesuffix(".py").replace("/", ".")
    module = _module(script)
    parse = getattr(module, "parse_arguments", None)
    assert parse is not None, f"{script} has no parse_arguments"
    parse(arguments)


def _module(name: str) -> object:
    if name != "test":  # the standard library has a module of that name
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location("test_script", REPOSITORY / "test.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page}: {command[:60]}" for page, command in COMMANDS])
def test_commands_parse(page: str, command: str) -> None:
    output = io.StringIO()
    with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
        try:
            parsed(command)
        except SystemExit as end:
            assert end.code == 0, f"{page}: {command}\n{output.getvalue()}"


def test_a_wrong_flag_is_noticed() -> None:
    with contextlib.redirect_stderr(io.StringIO()), pytest.raises(SystemExit):
        parsed("python info.py --cfg a.cfg --no-such-flag")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_import_existing_names(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            wrong.append(target)
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_source_files_exist(page: Path) -> None:
    named = set(re.findall(r"`([\w/]+/\w+\.py)`", page.read_text("utf-8"))) - {"models/layers/name.py"}
    assert not [name for name in sorted(named) if not (REPOSITORY / name).is_file()]


def anchors(page: Path) -> set[str]:
    """Names of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_cfg_reference_is_up_to_date() -> None:
    assert cfg_reference.OUT.read_text("utf-8") == cfg_reference.reference(), "run python -m docs.cfg_reference"


@pytest.mark.skipif(cv2.__version__ < "5", reason="the image was made with the letters of OpenCV 5")
def test_image_of_readme_is_up_to_date() -> None:
    found, kept = readme_image.annotated_samples().astype(int), cv2.imread(str(readme_image.OUT))
    assert kept is not None and found.shape == kept.shape and readme_image.OUT.stat().st_size < 200_000
    different = float(np.mean(np.abs(found - kept).max(axis=2) > 60))
    assert different < 0.002, "run python -m docs.readme_image"


@pytest.mark.parametrize("options", [*NET_AUDIENCES, *SECTIONS], ids=lambda options: options.__name__)
def test_every_key_is_used_or_marked_as_ignored(options: type) -> None:
    text = "\n".join(path.read_text("utf-8") for path in SOURCES)
    fields = [item for item in options.keys().values() if "ignored" not in item.metadata]  # type: ignore[attr-defined]
    unread = [item.name for item in fields if not re.search(rf"\.{item.name}\b|['\"]{item.name}['\"]", text)]
    assert not unread

"""Imports between packages only run down the layers of the architecture; type-checking imports count too."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import REPOSITORY

ALLOWED = {
    "utils": set(),
    "models": {"utils"},
    "data": {"utils"},
    "inference": {"models", "data", "utils"},
    "profiling": {"models", "utils"},
    "evaluation": {"inference", "models", "data", "utils"},
    "training": {"evaluation", "inference", "models", "data", "utils"},
    "darknet_cli": {"training", "evaluation", "inference", "models", "data", "utils"},
    "serving": {"inference", "models", "data", "utils"},
    "compose": {"models", "utils"},
    "docs": {"inference", "models", "utils"},
}
ROOMS = (*ALLOWED, "tests", "benchmarks")

# The layers of models/, from the bottom; a package includes all of its modules that are not listed separately.
FLOORS = (
    ("models.onnx_graph",),
    ("models.layers.base", "models.activations", "models.batchnorm"),
    ("models.layers",),
    ("models.heads",),
    ("models.catalog",),
    ("models.plan",),
    ("models.network",),
    ("models.weights", "models.weights_account", "models.training"),
    ("models.load", "models.shipped"),
    ("models.formats",),
    ("models.export",),
    ("models.features", "models.fit", "models.summary", "models.published"),
    ("models",),
)

FOR_SCRIPTS = ("utils.cli", "utils.version")


@functools.cache
def _graph() -> dict[str, frozenset[str]]:
    """Dotted name of every module in the repository -> the modules in the repository that it imports."""
    names = {}
    for path in REPOSITORY.rglob("*.py"):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        if not parts[0].startswith("."):
            names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {name: frozenset(_imports(path, set(names))) for name, path in sorted(names.items())}


def _imports(path: Path, names: set[str]) -> Iterator[str]:
    """Modules among `names` imported anywhere in a file, including in functions and for the type checker."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:  # `from package import module` imports the module, not a name in the package
                inner = f"{node.module}.{alias.name}"
                yield from {inner if inner in names else node.module} & names
        elif isinstance(node, ast.Import):
            yield from {alias.name for alias in node.names} & names


def _room(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize("room", ALLOWED)
def test_arrows_between_rooms_run_down(room: str) -> None:
    modules = {name: targets for name, targets in _graph().items() if _room(name) == room}
    assert modules
    allowed = {room, *ALLOWED[room]}
    arrows = [(name, target) for name, targets in modules.items() for target in targets if _room(target) in ROOMS]
    assert not [f"{name} imports {target}" for name, target in arrows if _room(target) not in allowed]


def _floor(name: str) -> int:
    floors = {module: number for number, modules in enumerate(FLOORS) for module in modules}
    package = next((each for each in (name, name.rpartition(".")[0]) if each in floors), None)
    assert package is not None, f"{name} stands on no floor of FLOORS"
    return floors[name if package is None else package]


def test_arrows_inside_models_run_down() -> None:
    graph = _graph()
    for name in (each for each in graph if _room(each) == "models"):
        for target in (each for each in graph[name] if _room(each) == "models"):
            assert _floor(target) <= _floor(name), f"{name} imports {target} of a higher floor"
    assert not {each for each in graph["models.onnx_graph"] if _room(each) == "models"}


def test_utils_serve_several_rooms() -> None:
    """A helper used by a single package belongs there. A helper imported by other helpers counts for their users."""
    graph = _graph()

    def rooms(helper: str) -> set[str]:
        users = [name for name, targets in graph.items() if helper in targets and _room(name) in ALLOWED]
        return {room for name in users for room in (rooms(name) if _room(name) == "utils" else {_room(name)})}

    helpers = {name for name in graph if _room(name) == "utils"} - {"utils", *FOR_SCRIPTS}
    assert not {helper: rooms(helper) for helper in helpers if len(rooms(helper)) < 2}


def test_nothing_imports_a_script() -> None:
    scripts = {path.stem for path in REPOSITORY.glob("*.py")} - {"hubconf"}
    assert not [
        (name, target) for name, targets in _graph().items() if _room(name) in ALLOWED for target in targets & scripts
    ]


def test_no_import_circles() -> None:
    graph, done = _graph(), set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import circle: {' -> '.join((*trail[trail.index(name) :], name))}"
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())

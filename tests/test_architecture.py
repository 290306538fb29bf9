"""The rooms and the arrows between them: scripts -> models, data, engine -> utils, and never another way."""

from __future__ import annotations

import ast
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
    "serving": {"inference", "models", "data", "utils"},
    "compose": {"models", "utils"},
    "docs": {"inference", "models", "utils"},
}
ROOMS = (*ALLOWED, "tests", "benchmarks")


def _imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def _modules(room: str) -> list[Path]:
    return sorted((REPOSITORY / room).rglob("*.py"))


@pytest.mark.parametrize("room", ALLOWED)
def test_arrows_point_one_way(room: str) -> None:
    wrong = [
        f"{path.relative_to(REPOSITORY)} imports {name}"
        for path in _modules(room)
        for name in _imports(path)
        if name.split(".")[0] in ROOMS and name.split(".")[0] not in {room, *ALLOWED[room]}
    ]
    assert not wrong


def test_nothing_imports_a_script() -> None:
    scripts = {path.stem for path in REPOSITORY.glob("*.py")} - {"hubconf"}
    inside = [path for room in ALLOWED for path in _modules(room)]
    assert not [(path.name, name) for path in inside for name in _imports(path) if name in scripts]


def test_no_cycles() -> None:
    names = {}
    for room in ALLOWED:
        for path in _modules(room):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {name: _runtime_imports(path, set(names)) for name, path in names.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import cycle: {' -> '.join((*trail, name))}"
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def _runtime_imports(path: Path, names: set[str]) -> set[str]:
    """Modules among `names` imported at module level; imports for the type checker only are left out."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:  # `from package import module` reads the module, not what the package offers
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in names else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & names

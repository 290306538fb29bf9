"""Build the import package `cspyolo` from the flat tree.

In a clone, rooms and scripts are top-level modules (`models`, `detect`, ...). The package contains them below `cspyolo`, so
that they cannot collide with a user's own modules; their imports of each other are rewritten during the build.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

NAME = "cspyolo"
ROOMS = tuple(path.parent.name for path in Path().glob("*/__init__.py") if path.parent.name not in (NAME, "tests"))
SCRIPTS = tuple(path.stem for path in Path().glob("*.py") if path.stem not in ("setup", "hubconf"))
FOLDERS = ("cfg", "weights")  # data files next to the rooms


def packages() -> dict[str, str]:
    """Return the name of every package with its folder in the tree."""
    found = {NAME: NAME} | {f"{NAME}.{each}": each for each in FOLDERS}
    for room in ROOMS:
        folders = {path.parent for path in Path(room).rglob("*.py")} | {Path(room)}
        found |= {f"{NAME}.{'.'.join(folder.parts)}": folder.as_posix() for folder in folders}
    return found | {f"{NAME}.data.samples": "data/samples", f"{NAME}.serving.page": "serving/page"}


def relocated(source: str) -> str:
    """Return source code with imports of rooms and scripts moved below the package. Raises ValueError if it cannot."""
    own, lines = {*ROOMS, *SCRIPTS}, source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] in own:
            lines[node.lineno - 1] = re.sub(r"\bfrom\s+", f"from {NAME}.", lines[node.lineno - 1], count=1)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] not in own:
                    continue
                if len(node.names) > 1 or ("." in alias.name and alias.asname is None):
                    raise ValueError(
                        f"line {node.lineno}: expected `from ... import ...` in place of `import {alias.name}`"
                    )
                parent, _, module = f"{NAME}.{alias.name}".rpartition(".")
                line = lines[node.lineno - 1]
                lines[node.lineno - 1] = line.replace(f"import {alias.name}", f"from {parent} import {module}", 1)
    return "".join(lines)


class BuildPackage(build_py):
    """Copy the scripts into the package too, and move the imports of all modules below it."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # the tree itself is imported
            return
        target = Path(self.build_lib) / NAME
        for script in SCRIPTS:
            self.copy_file(f"{script}.py", str(target / f"{script}.py"), preserve_mode=False)
        for path in target.rglob("*.py"):
            path.write_text(relocated(path.read_text("utf-8")), "utf-8")


setup(
    packages=sorted(packages()),
    package_dir=packages(),
    package_data={
        NAME: ["py.typed"],
        f"{NAME}.cfg": ["*.cfg"],
        f"{NAME}.compose": ["*.txt", "*.template"],
        f"{NAME}.weights": ["*.cfg", "*.weights", "*.names", "*.md"],
        f"{NAME}.data.samples": ["*"],
        f"{NAME}.serving.page": ["*"],
    },
    cmdclass={"build_py": BuildPackage},
)

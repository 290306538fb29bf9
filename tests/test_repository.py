"""The repository's own files agree with each other."""

from __future__ import annotations

import re
from importlib import metadata

import pytest

from tests.paths import REPOSITORY


def test_readme_and_ci_run_the_same_test_command() -> None:
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    command = next(line for line in (REPOSITORY / ".ci" / "run").read_text("utf-8").splitlines() if "pytest" in line)
    assert command in readme


def test_the_workflow_runs_ci() -> None:
    workflow = (REPOSITORY / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    assert re.search(r"(?m)^ +- run: \.ci/run$", workflow)


def test_every_requirement_is_pinned() -> None:
    pinned = re.findall(r"(?m)^([\w-]+)==\S+$", (REPOSITORY / "constraints.txt").read_text("utf-8"))
    needed = [re.findall(r"(?m)^([\w-]+)>=", path.read_text("utf-8")) for path in REPOSITORY.glob("requirements*.txt")]
    assert set().union(*needed) <= set(pinned)


def test_both_opencv_wheels_have_the_same_version() -> None:
    versions = {}
    for name in ("opencv-python", "opencv-python-headless"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if len(versions) < 2:
        pytest.skip("only one OpenCV wheel is installed")
    assert len(set(versions.values())) == 1, versions


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "constraints.txt"])
def test_project_files_exist(name: str) -> None:
    assert (REPOSITORY / name).stat().st_size > 200

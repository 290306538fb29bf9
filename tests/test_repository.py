"""Promises that the repository makes about itself."""

from __future__ import annotations

from importlib import metadata

import pytest

from tests.paths import REPOSITORY


def test_readme_and_ci_run_the_same_test_command() -> None:
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    command = next(line for line in (REPOSITORY / ".ci" / "run").read_text("utf-8").splitlines() if "pytest" in line)
    assert command in readme


def test_both_opencv_wheels_are_of_one_version() -> None:
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
def test_the_usual_files_are_there(name: str) -> None:
    assert (REPOSITORY / name).stat().st_size > 200

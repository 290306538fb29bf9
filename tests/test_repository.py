"""The repository's own files agree with each other."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

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


@pytest.mark.parametrize(
    "name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "constraints.txt"]
)
def test_project_files_exist(name: str) -> None:
    assert (REPOSITORY / name).stat().st_size > 200


def locked_versions(path: Path) -> dict[str, set[str]]:
    """Versions of each package in a lock file, in which every package has hashes."""
    locked: dict[str, set[str]] = {}
    for block in re.split(r"\n(?=\S)", path.read_text("utf-8").strip()):
        name, version = re.match(r"([\w.-]+)==([\w.]+)", block).groups()
        locked.setdefault(name, set()).add(version)
        assert re.findall(r"--hash=sha256:[0-9a-f]{64}(?= \\$|$)", block, re.MULTILINE), name
    return locked


def test_the_lock_files_have_a_hash_for_everything_that_a_user_installs() -> None:
    pinned = dict(re.findall(r"(?m)^([\w-]+)==(\S+)$", (REPOSITORY / "constraints.txt").read_text("utf-8")))
    locked = locked_versions(REPOSITORY / "requirements.lock")
    optional = locked_versions(REPOSITORY / "requirements-optional.lock")
    assert not set(locked) & set(optional)
    needs = {
        path.name: set(re.findall(r"(?m)^([\w-]+)(?:\[\w+\])?>=", path.read_text("utf-8").lower()))
        for path in REPOSITORY.glob("requirements*.txt")
        if path.name != "requirements-dev.txt"
    }
    assert needs["requirements.txt"] <= set(locked)
    assert set.union(*needs.values()) <= set(locked) | set(optional)
    found = locked | optional
    differing = {name: versions for name, versions in found.items() if name in pinned and versions != {pinned[name]}}
    assert not differing, "constraints.txt has changed: run .ci/lock"


def test_the_bill_of_materials_names_every_package() -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / ".ci" / "sbom")], capture_output=True, text=True, check=True
    )
    document = json.loads(done.stdout)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    found = {each["name"]: each for each in document["components"]}
    assert found["numpy"]["version"] == metadata.version("numpy")
    assert found["torch"]["purl"] == f"pkg:pypi/torch@{metadata.version('torch').replace('+', '%2B')}"

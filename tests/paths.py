"""Locations of the recordings (in the repository) and of third-party material (outside it, optional)."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
REFERENCE = REPOSITORY / "tests" / "reference"
SHARED = REPOSITORY.parent / "shared"


def shared(relative: str) -> Path:
    """Path of third-party material such as "zoo" or "datasets/bccd"; skips the test if it is missing."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"needs {relative}, which is not distributed with the project")
    return path

"""The detectors in weights/: each with its cfg, names and card, and loading without a byte to spare."""

from __future__ import annotations

import pytest

from models.load import load
from tests.paths import REPOSITORY

FOLDER = REPOSITORY / "weights"
SHIPPED = ("scenes", "csppeleenet-efm-bccd", "cspdensenetb-ref-prn-bccd")
MOST_MB = 40


@pytest.mark.parametrize("name", SHIPPED)
def test_loads_with_names_and_card(name: str) -> None:
    network = load(FOLDER / f"{name}.cfg", FOLDER / f"{name}.weights")
    names = (FOLDER / f"{name}.names").read_text().split("\n")[:-1]
    assert {step.section.classes for step in network.plan.heads} == {len(names)}  # type: ignore[attr-defined]
    assert network.seen > 0
    card = (FOLDER / f"{name}.md").read_text()
    assert all(f"| {row}" in card for row in ("data", "network", "training", "metrics", "licence"))


def test_together_they_are_small() -> None:
    assert sum((FOLDER / f"{name}.weights").stat().st_size for name in SHIPPED) < MOST_MB * 1e6

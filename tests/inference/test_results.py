"""Results as text."""

from __future__ import annotations

from collections import Counter

import pytest

from inference.results import found_text


@pytest.mark.parametrize(
    ("class_ids", "most", "text"),
    [
        ([], 2, "no objects"),
        ([1, 0, 1], None, "2 dog, 1 cat"),
        ([1, 0, 1, 2], 2, "2 dog, 1 cat, 1 cow"),  # a name instead of "1 of 1 other class"
        ([1, 0, 1, 2, 3, 3], 1, "2 dog, 4 of 3 other classes"),
    ],
)
def test_found_text(class_ids: list[int], most: int | None, text: str) -> None:
    assert found_text(Counter(class_ids), ("cat", "dog", "cow", "hen"), most) == text

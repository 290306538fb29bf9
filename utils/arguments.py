"""Types for command line flags; argparse shows their names when a value is refused."""

from __future__ import annotations

import math


def above_zero(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


above_zero.__name__, whole.__name__, share.__name__, positive.__name__ = (
    "whole number above 0",
    "whole number from 0",
    "number between 0 and 1",
    "number above 0",
)

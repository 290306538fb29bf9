"""What detection needs of a network: its plan, its layers, and a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from models.layers.base import Layer
from models.plan import Plan


class Runnable(Protocol):
    """A Network, or an exported model that stands for one.

    Called with pictures (n, channels, height, width) it returns the outputs of the heads, or for exported models with boxes
    inside these. Of the layers, those that are heads are used.
    """

    @property
    def plan(self) -> Plan: ...

    @property
    def __call__(self) -> Any: ...

    def __iter__(self) -> Iterator[Layer]: ...

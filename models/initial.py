"""Weights of a new layer: uniform random values, or none when a weights file is read right afterwards."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_blank: ContextVar[bool] = ContextVar("blank", default=False)


@contextmanager
def blank_weights() -> Iterator[None]:
    """Layers built in this block have zeros for weights; of a big network that saves most of the time to build it."""
    token = _blank.set(True)
    try:
        yield
    finally:
        _blank.reset(token)


def initial_weights(shape: tuple[int, ...], fan_in: int) -> Tensor:
    """Uniform in +-sqrt(2 / fan_in), as convolutional_layer.c make_convolutional_layer and its like draw them."""
    if _blank.get():
        return torch.zeros(shape)
    bound = math.sqrt(2 / fan_in)
    return torch.empty(shape).uniform_(-bound, bound)

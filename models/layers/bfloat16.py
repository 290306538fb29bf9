"""Convolutions of a bfloat16 forward pass on processors without instructions for that format."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # Intel and AMD, Intel, Arm

Convolve = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@lru_cache
def has_instructions() -> bool:
    """Whether this processor multiplies bfloat16. Yes where PyTorch cannot tell: before 2.13 it is left to itself."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    return capabilities is None or any(capabilities().get(name) for name in _INSTRUCTIONS)


def lacks_instructions(x: Tensor) -> bool:
    """Whether x meets a bfloat16 autocast on a processor that would have to imitate it."""
    return (
        x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and not has_instructions()
    )


def by_float32(convolve: Convolve) -> Convolve:
    """`convolve` as such instructions do it: of bfloat16 values, summed in float32, the result in bfloat16.

    Gradients are rounded in the same places, and what waits for the backward pass waits in bfloat16. Left to itself
    PyTorch imitates the instructions one by one, which takes three and a half times as long as float32.
    """

    def rounding(x: Tensor, weights: Tensor, biases: Tensor | None) -> Tensor:
        with torch.autocast("cpu", enabled=False), saved_tensors_hooks(Tensor.bfloat16, Tensor.float):
            return convolve(_rounded(x), _rounded(weights), None if biases is None else _rounded(biases)).bfloat16()

    return rounding


def _rounded(x: Tensor) -> Tensor:
    return x.bfloat16().float()

"""1x1 convolutions as matrix products and as distributed images, compared with PyTorch's: values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from models.layers import convolve
from models.layers.convolve import is_pointwise, pointwise


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 1, 4, 4), (3, 8, 1, 1), (1, 5, 13, 13), (2, 4, 26, 26)])
@pytest.mark.parametrize("with_biases", [False, True])
@pytest.mark.parametrize("has_avx512", [False, True])
def test_same_as_convolution(
    shape: tuple[int, int, int, int], with_biases: bool, has_avx512: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolve, "has_avx512", lambda: has_avx512)
    torch.manual_seed(0)
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last).requires_grad_()
    weights = torch.randn(6, shape[1], 1, 1, requires_grad=True)
    biases = torch.randn(6, requires_grad=True) if with_biases else None
    assert is_pointwise(x, (1, 1), (1, 1), 0, 1)
    tensors = [t for t in (x, weights, biases) if t is not None]
    ours, theirs = pointwise(x, weights, biases), F.conv2d(x, weights, biases)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    change = torch.randn_like(theirs)
    for a, b in zip(
        torch.autograd.grad(ours, tensors, change), torch.autograd.grad(theirs, tensors, change), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kernel", "strides", "border", "groups"),
    [((3, 3), (1, 1), 1, 1), ((1, 1), (2, 2), 0, 1), ((1, 1), (1, 1), 1, 1), ((1, 1), (1, 1), 0, 2)],
)
def test_other_convolutions_are_not(
    kernel: tuple[int, int], strides: tuple[int, int], border: int, groups: int
) -> None:
    x = torch.zeros(2, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    assert not is_pointwise(x, kernel, strides, border, groups)
    assert not is_pointwise(x.contiguous(), (1, 1), (1, 1), 0, 1)

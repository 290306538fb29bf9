"""bfloat16 convolutions on processors without instructions for it, compared with PyTorch's emulation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from models.layers import convolve as bfloat16
from models.network import Network
from models.plan import make_plan
from utils.cfg import parse

CFG = """[net]
width=16
height=16
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
pad=1
activation=leaky
[convolutional]
filters=4
size=1
activation=linear
"""


def tensors() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 9, 7).contiguous(memory_format=torch.channels_last).requires_grad_()
    return x, torch.randn(6, 5, 3, 3, requires_grad=True), torch.randn(6, requires_grad=True)


@pytest.mark.parametrize("with_biases", [False, True])
def test_values_and_gradients_of_pytorch(with_biases: bool) -> None:
    x, weights, biases = tensors()
    wanted = [x, weights, biases] if with_biases else [x, weights]
    given = biases if with_biases else None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        theirs = F.conv2d(x, weights, given, padding=1)
        ours = bfloat16.rounded_to_bfloat16(lambda x, weights, biases: F.conv2d(x, weights, biases, padding=1))(
            x, weights, given
        )
    assert ours.dtype == theirs.dtype == torch.bfloat16
    one_step = 2**-7  # relative step of bfloat16: sums in a different order may round to the neighbouring value
    torch.testing.assert_close(ours, theirs, rtol=one_step, atol=1e-2)
    change = torch.randn_like(theirs)
    pairs = zip(torch.autograd.grad(ours, wanted, change), torch.autograd.grad(theirs, wanted, change), strict=True)
    for mine, reference in pairs:
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, reference, rtol=2 * one_step, atol=3e-2)


def test_tensors_saved_for_the_backward_pass_have_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = list[tuple[torch.dtype, bool]]()

    def hooks(pack: Callable[[Tensor], Tensor], unpack: Callable[[Tensor], Tensor]) -> saved_tensors_hooks:
        def noted(x: Tensor) -> Tensor:
            packed = pack(x)
            kept.append((packed.dtype, torch.equal(unpack(packed), x)))
            return packed

        return saved_tensors_hooks(noted, unpack)

    monkeypatch.setattr(bfloat16, "saved_tensors_hooks", hooks)
    x, weights, biases = tensors()
    bfloat16.rounded_to_bfloat16(F.conv2d)(x, weights, biases)
    assert kept == [(torch.bfloat16, True)] * 2  # and this loses nothing


@pytest.mark.parametrize("instructions", [False, True])
def test_used_in_training_where_instructions_are_missing(instructions: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[torch.dtype]()

    def spied(convolve: bfloat16.Convolve) -> bfloat16.Convolve:
        def inner(x: Tensor, weights: Tensor, biases: Tensor | None) -> Tensor:
            calls.append(x.dtype)
            return convolve(x, weights, biases)

        return rounded_to_bfloat16(inner)

    rounded_to_bfloat16 = bfloat16.rounded_to_bfloat16
    monkeypatch.setattr(bfloat16, "has_bfloat16", lambda: instructions)
    monkeypatch.setattr("models.layers.convolutional.rounded_to_bfloat16", spied)
    network = Network(make_plan(parse(CFG))).train()
    x = torch.rand(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = network(x)[0]
    assert calls == ([] if instructions else [torch.float32, torch.float32])
    y[0].float().sum().backward()
    network(x)  # without autocast
    assert len(calls) == (0 if instructions else 2)


def test_instructions_as_reported_by_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    for says, expected in (({"avx512_bf16": False}, False), ({"amx_bf16": True}, True), ({"bf16": True}, True)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda says=says: says, raising=False)
        bfloat16.has_bfloat16.cache_clear()
        assert bfloat16.has_bfloat16() is expected
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    bfloat16.has_bfloat16.cache_clear()
    assert bfloat16.has_bfloat16()
    bfloat16.has_bfloat16.cache_clear()

"""Update rules compared with the original's, written out like its kernels, one tensor and one step at a time."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from models.training import TrainedTensor
from training.optimizer import AdamW, DarknetOptimizer
from utils.net_options import ScheduleOptions

OPTIONS = ScheduleOptions(momentum=0.9, decay=0.005, learning_rate=0.01)
BATCH = 4


def gradients(shape: tuple[int, ...], count: int = 5) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    rng = np.random.default_rng(7)
    return [rng.normal(0, 3, shape).astype(np.float32) for _ in range(count)]


def run(options: ScheduleOptions, shape: tuple[int, ...], rates: list[float], **rules: Any) -> tuple[Any, Any]:
    """A tensor before and after the updates, one for each rate."""
    start = np.random.default_rng(3).normal(0, 1, shape).astype(np.float32)
    tensor = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = DarknetOptimizer([TrainedTensor(tensor=tensor, layer=0, **rules)], options)
    for iteration, (rate, gradient) in enumerate(zip(rates, gradients(shape), strict=False), start=1):
        tensor.grad = torch.from_numpy(gradient)
        optimizer.step(iteration, rate, BATCH)
    return start, tensor.detach().numpy()


@pytest.mark.parametrize("decay", [False, True])
@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_sgd_is_update_convolutional_layer_gpu(decay: bool, factor: float) -> None:
    rates = [0.1, 0.05, 0.2, 0.1]
    start, end = run(OPTIONS, (3, 2, 3, 3), rates, decay=decay, rate_factor=factor)
    w, updates = start.astype(np.float64), np.zeros_like(start, dtype=np.float64)
    for rate, gradient in zip(rates, gradients(start.shape), strict=False):
        updates -= gradient
        if decay:
            updates -= OPTIONS.decay * BATCH * w
        w += rate * factor / BATCH * updates
        updates *= OPTIONS.momentum
    np.testing.assert_allclose(end, w, rtol=1e-5, atol=1e-6)


def test_adam_is_adam_update_gpu_and_decays_biases_too() -> None:
    options = replace(OPTIONS, adam=True, B1=0.8, B2=0.99, eps=1e-3)
    rates = [0.1, 0.05, 0.2, 0.1]
    start, end = run(options, (7,), rates, decay=False)
    w, m, v = start.astype(np.float64), np.zeros(7), np.zeros(7)
    for t, (rate, gradient) in enumerate(zip(rates, gradients((7,)), strict=False), start=1):
        d = -gradient - options.decay * BATCH * w
        m, v = m * 0.8 + 0.2 * d, v * 0.99 + 0.01 * d * d
        w += rate * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-3)
    np.testing.assert_allclose(end, w, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decay", [False, True])
def test_adamw_is_pytorchs_on_mean_gradients(decay: bool) -> None:
    options = replace(OPTIONS, decay=0.05, B1=0.8, B2=0.99, eps=1e-3)
    shape, rates = (3, 4), [0.1, 0.05, 0.2, 0.1]
    ours, theirs = (torch.nn.Parameter(torch.arange(12.0).reshape(shape)) for _ in range(2))
    optimizer = AdamW([TrainedTensor(tensor=ours, layer=0, decay=decay, adam=False, update_limit=0.1)], options)
    reference = torch.optim.AdamW([theirs], betas=(0.8, 0.99), eps=1e-3, weight_decay=0.05 if decay else 0.0)
    for iteration, (rate, gradient) in enumerate(zip(rates, gradients(shape), strict=False), start=1000):
        ours.grad, theirs.grad = torch.from_numpy(gradient), torch.from_numpy(gradient) / BATCH
        optimizer.step(iteration, rate, BATCH)
        reference.param_groups[0]["lr"] = rate
        reference.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_shortcut_weights_have_limited_updates_and_no_adam() -> None:
    start, end = run(replace(OPTIONS, adam=True), (4,), [0.5], adam=False, update_limit=1.0)
    np.testing.assert_allclose(end, start + 0.5 / BATCH * np.clip(-gradients((4,))[0], -1, 1), rtol=1e-6)


def test_clip_bounds_the_weights_themselves() -> None:
    _, end = run(OPTIONS, (50,), [0.5, 0.5], weight_limit=0.3)
    assert np.abs(end).max() == pytest.approx(0.3)


@pytest.mark.parametrize(("shape", "moves"), [((3, 32, 1, 1), False), ((3, 5, 1, 1), True)])
def test_centred_updates_keep_each_filters_mean_if_its_size_is_a_multiple_of_32(shape: Any, moves: bool) -> None:
    start, end = run(OPTIONS, shape, [0.5], centred=True)
    drift = np.abs(end.mean((1, 2, 3)) - start.mean((1, 2, 3))).max()
    assert (drift > 1e-3) == moves


def test_a_tensor_is_left_alone_before_its_first_iteration() -> None:
    start, end = run(OPTIONS, (4,), [0.1, 0.1], first_iteration=3, decay=True)
    np.testing.assert_array_equal(start, end)
    start, end = run(OPTIONS, (4,), [0.1, 0.1, 0.1], first_iteration=3, decay=True)
    assert (start != end).all()


def test_without_gradient_a_weight_decays() -> None:
    tensor = torch.nn.Parameter(torch.ones(3))
    DarknetOptimizer([TrainedTensor(tensor=tensor, layer=0, decay=True)], OPTIONS).step(1, 0.1, BATCH)
    torch.testing.assert_close(tensor.detach(), torch.full((3,), 1 - 0.1 * OPTIONS.decay))


@pytest.mark.parametrize("kind", [DarknetOptimizer, AdamW])
def test_state_survives_a_round_trip(kind: type[DarknetOptimizer]) -> None:
    def make() -> tuple[torch.nn.Parameter, DarknetOptimizer]:
        tensor = torch.nn.Parameter(torch.arange(4.0))
        return tensor, kind([TrainedTensor(tensor=tensor, layer=0)], OPTIONS)

    whole, first = make()
    for iteration, gradient in enumerate(gradients((4,), 4), start=1):
        whole.grad = torch.from_numpy(gradient)
        first.step(iteration, 0.1, BATCH)
        if iteration == 2:
            half, second = make()
            half.data.copy_(whole.data)
            second.load_state_dict(copy.deepcopy(first.state_dict()))
    for iteration, gradient in enumerate(gradients((4,), 4)[2:], start=3):
        half.grad = torch.from_numpy(gradient)
        second.step(iteration, 0.1, BATCH)
    assert torch.equal(whole, half)

"""Statistics of batch normalisation over several processes (Zhang et al., Context Encoding, 2018, sec. 3.3).

PyTorch's SyncBatchNorm works on GPUs only and divides the variance by N; this is the arithmetic of models/batchnorm.py over
the pictures of all processes, with sums by all_reduce.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from utils.processes import Processes


def shared_normalisation(
    x: Tensor, scales: Tensor, biases: Tensor, eps: float, processes: Processes
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean, variance) of x (n, channels, ...) by the statistics of all processes; the variance is divided by N - 1."""
    y, mean, variance = _SharedStatistics.apply(x, scales, biases, eps, processes)  # type: ignore[no-untyped-call]
    return y, mean, variance


def shared_moments(x: Tensor, processes: Processes) -> tuple[Tensor, Tensor, Tensor]:
    """(mean, sum of squared differences from it, number of values) of each channel over all processes."""
    values = x.detach().float()
    count = values.new_full((1,), x.numel() / x.shape[1])
    mean = values.sum(_rest(x))
    processes.add([mean, count])
    mean /= count
    squares = (values - _spread(mean, x)).square().sum(_rest(x))
    processes.add([squares])
    return mean, squares, count


def shared_gradient(
    grad: Tensor, x: Tensor, scales: Tensor, mean: Tensor, inverse: Tensor, processes: Processes
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, scales and biases: as if the variance had been divided by N, over all processes.

    Those of scales and biases are this process's part: gradients of weights are summed over the processes later.
    """
    grad32, offset = grad.float(), x.float() - _spread(mean, x)
    of_biases = grad32.sum(_rest(x))
    projected = (grad32 * offset).sum(_rest(x))
    of_scales = projected * inverse
    total, count = of_biases.clone(), x.new_full((1,), x.numel() / x.shape[1], dtype=torch.float32)
    processes.add([total, projected, count])
    slope = projected * inverse * inverse / count
    of_x = (grad32 - _spread(total / count, x) - offset * _spread(slope, x)) * _spread(inverse * scales, x)
    return of_x.to(x.dtype), of_scales, of_biases


class _SharedStatistics(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scales: Tensor, biases: Tensor, eps: float, processes: Processes
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, squares, count = shared_moments(x, processes)
        variance = squares / (count - 1).clamp(min=1)
        inverse = torch.rsqrt(variance + eps)
        ctx.save_for_backward(x, scales, mean, inverse)
        ctx.processes = processes
        ctx.mark_non_differentiable(mean, variance)
        factor = scales * inverse
        y = (x - _spread(mean, x)) * _spread(factor, x) + _spread(biases, x)
        return y.to(x.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, scales, mean, inverse = ctx.saved_tensors
        return (*shared_gradient(grad, x, scales, mean, inverse, ctx.processes), None, None)


def _rest(x: Tensor) -> list[int]:
    return [dim for dim in range(x.dim()) if dim != 1]


def _spread(values: Tensor, x: Tensor) -> Tensor:
    """Values of channels in a shape that meets (n, channels, ...)."""
    return values.view(-1, *(1 for _ in range(x.dim() - 2)))

"""Batch normalisation with the original's arithmetic."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.processes import Processes

EPS = 1e-5  # blas.c normalize_cpu: .00001f inside the square root
GPU_MOMENTUM = 0.01  # batchnorm_kernels.cu: rolling = .99 * old + .01 * new
CPU_MOMENTUM = 0.1  # batchnorm_layer.c forward_batchnorm_layer


class BatchNorm(nn.Module):
    """y = scales * (x - mean) / sqrt(variance + 1e-5) + biases over (n, channels, height, width).

    In training, mean and variance are those of the batch. The variance is divided by N - 1 both in the normalisation and in
    the rolling average (blas.c variance_cpu, blas_kernels.cu fast_variance_delta_kernel), but the gradient, as in the original,
    is that of a variance divided by N.

    processes: the processes whose images form one batch; by default only this one.
    deferred: if not None, statistics of batches that the rolling ones do not include yet (see `follow`).
    """

    rolling_mean: Tensor
    rolling_variance: Tensor

    def __init__(self, channels: int, momentum: float = GPU_MOMENTUM) -> None:
        super().__init__()
        self.momentum = momentum
        self.processes = Processes()
        self.deferred: list[tuple[Tensor, Tensor]] | None = None
        self.biases = nn.Parameter(torch.zeros(channels))
        self.scales = nn.Parameter(torch.ones(channels))
        self.register_buffer("rolling_mean", torch.zeros(channels))
        self.register_buffer("rolling_variance", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(x, self.rolling_mean, self.rolling_variance, self.scales, self.biases, eps=EPS)
        if self.processes.count > 1:
            y, mean, variance = _SharedStatistics.apply(x, self.scales, self.biases, self.processes)
        else:
            y, mean, variance = _BatchStatistics.apply(x, self.scales, self.biases)
        if self.deferred is None:
            self.follow(mean, variance)
        else:
            self.deferred.append((mean, variance))
        return y

    @torch.no_grad()
    def follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the rolling statistics towards those of a batch."""
        self.rolling_mean.lerp_(mean.to(self.rolling_mean.dtype), self.momentum)
        self.rolling_variance.lerp_(variance.to(self.rolling_variance.dtype), self.momentum)

    def start_batch(self) -> None:
        """Called before the first subdivision of each batch."""

    def affine(self) -> tuple[Tensor, Tensor]:
        """Per-channel (factor, offset) at inference, in double precision like network.c fuse_conv_batchnorm."""
        factor = self.scales.double() / torch.sqrt(self.rolling_variance.double() + EPS)
        return factor, self.biases.double() - self.rolling_mean.double() * factor


class CrossBatchNorm(BatchNorm):
    """Statistics over all subdivisions of the batch so far (batch_normalize=2; blas_kernels.cu fast_v_cbn_kernel)."""

    batch_mean: Tensor
    batch_square: Tensor

    def __init__(self, channels: int, momentum: float = GPU_MOMENTUM) -> None:
        super().__init__(channels, momentum)
        self.subdivisions = 0
        self.register_buffer("batch_mean", torch.zeros(channels), persistent=False)
        self.register_buffer("batch_square", torch.zeros(channels), persistent=False)

    def start_batch(self) -> None:
        """Forget the subdivisions of the previous batch."""
        self.subdivisions = 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        with torch.no_grad():
            self.subdivisions += 1
            mean, power = self._moments(x)
            square = torch.maximum(power, mean * mean)
            self.batch_mean.lerp_(mean, 1 / self.subdivisions)
            self.batch_square.lerp_(square, 1 / self.subdivisions)
            variance = (self.batch_square - self.batch_mean**2).clamp(min=0)
            self.rolling_mean.lerp_(self.batch_mean, self.momentum)
            self.rolling_variance.lerp_(variance, self.momentum)
        statistics = self.batch_mean.clone(), torch.rsqrt(variance + EPS)
        return _GivenStatistics.apply(x, self.scales, self.biases, *statistics, self.processes)

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Per channel: the mean, and the sum of squares divided by N - 1."""
        if self.processes.count > 1:
            mean, squares, count = _shared_moments(x, self.processes)
            return mean, (squares + count * mean * mean) / (count - 1).clamp(min=1)
        values = x.detach().transpose(0, 1).flatten(1).float()
        return values.mean(1), (values * values).sum(1) / max(values.shape[1] - 1, 1)


class _BatchStatistics(torch.autograd.Function):
    """PyTorch's batch-norm kernels with a variance divided by N - 1.

    (x - m) / sqrt(v N/(N-1) + e) = r (x - m) / sqrt(v + e r^2) with r = sqrt((N-1)/N), so the forward kernel is called with
    scales times r and epsilon e r^2. The backward kernel, called with 1/sqrt(v N/(N-1) + e), computes the same as
    batchnorm_layer.c backward_batchnorm_layer.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: Tensor, biases: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        count = x.numel() // x.shape[1]
        ratio = math.sqrt((count - 1) / count) if count > 1 else 1.0
        y, mean, inverse = torch.native_batch_norm(
            x, scales * ratio, biases, None, None, True, 0.0, EPS * ratio * ratio
        )
        inverse = inverse * ratio
        ctx.save_for_backward(x, scales, mean, inverse)
        variance = 1 / (inverse * inverse) - EPS
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _native_gradient(grad, *ctx.saved_tensors)


class _GivenStatistics(torch.autograd.Function):
    """Normalise x by given statistics; the gradient treats them as the statistics of x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scales: Tensor, biases: Tensor, mean: Tensor, inverse: Tensor, processes: Processes
    ) -> Tensor:
        ctx.save_for_backward(x, scales, mean, inverse)
        ctx.processes = processes
        factor = scales * inverse
        offset = biases - mean * factor
        return (x * factor.view(-1, 1, 1) + offset.view(-1, 1, 1)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.processes.count > 1:
            return (*_shared_gradient(ctx.processes, grad, *ctx.saved_tensors), None, None, None)
        return (*_native_gradient(grad, *ctx.saved_tensors), None, None, None)


class _SharedStatistics(torch.autograd.Function):
    """Normalise x (n, channels, ...) by the statistics of all processes; returns (y, mean, variance), variance over N - 1."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scales: Tensor, biases: Tensor, processes: Processes
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, squares, count = _shared_moments(x, processes)
        variance = squares / (count - 1).clamp(min=1)
        inverse = torch.rsqrt(variance + EPS)
        ctx.save_for_backward(x, scales, mean, inverse)
        ctx.processes = processes
        ctx.mark_non_differentiable(mean, variance)
        factor = scales * inverse
        y = (x - _per_channel(mean, x)) * _per_channel(factor, x) + _per_channel(biases, x)
        return y.to(x.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        return (*_shared_gradient(ctx.processes, grad, *ctx.saved_tensors), None)


def _shared_moments(x: Tensor, processes: Processes) -> tuple[Tensor, Tensor, Tensor]:
    """Per channel over all processes: mean, sum of squared deviations, number of values."""
    values = x.detach().float()
    count = values.new_full((1,), x.numel() / x.shape[1])
    mean = values.sum(_other_dims(x))
    processes.all_reduce([mean, count])
    mean /= count
    squares = (values - _per_channel(mean, x)).square().sum(_other_dims(x))
    processes.all_reduce([squares])
    return mean, squares, count


def _shared_gradient(
    processes: Processes, grad: Tensor, x: Tensor, scales: Tensor, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, scales and biases over all processes, as for a variance divided by N.

    The gradients of scales and biases cover this process only; the training loop sums weight gradients over the processes.
    """
    grad32, offset = grad.float(), x.float() - _per_channel(mean, x)
    of_biases = grad32.sum(_other_dims(x))
    projected = (grad32 * offset).sum(_other_dims(x))
    of_scales = projected * inverse
    total, count = of_biases.clone(), x.new_full((1,), x.numel() / x.shape[1], dtype=torch.float32)
    processes.all_reduce([total, projected, count])
    slope = projected * inverse * inverse / count
    of_x = (grad32 - _per_channel(total / count, x) - offset * _per_channel(slope, x)) * _per_channel(
        inverse * scales, x
    )
    return of_x.to(x.dtype), of_scales, of_biases


def _other_dims(x: Tensor) -> list[int]:
    return [dim for dim in range(x.dim()) if dim != 1]


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Reshape one value per channel so that it broadcasts with x (n, channels, ...)."""
    return values.view(-1, *(1 for _ in range(x.dim() - 2)))


def _native_gradient(
    grad: Tensor, x: Tensor, scales: Tensor, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, scales and biases from PyTorch's kernel, which is many times slower if x and `grad` differ in layout."""
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    grad = grad.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    return torch.ops.aten.native_batch_norm_backward(
        grad, x, scales, None, None, mean, inverse, True, EPS, [True, True, True]
    )

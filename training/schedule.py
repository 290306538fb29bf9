"""The learning rate schedule (network.c get_current_rate)."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable

import numpy as np

from utils.errors import InputError
from utils.net_options import POLICIES, ScheduleOptions

logger = logging.getLogger(__name__)


class Schedule:
    """Learning rate by iteration, which counts weight updates from 1, as in the original when it applies a rate.

    cosine: instead of the policy, follow half a cosine after burn-in, from learning_rate down to learning_rate_min at
        max_batches.
    seed: seed of policy `random`, whose rate depends only on seed and iteration.

    An unknown policy means constant, as in the original, with a warning. Raises InputError if a policy lacks its parameters.
    """

    def __init__(self, options: ScheduleOptions, *, cosine: bool = False, seed: int = 0) -> None:
        self.options = options
        self.seed = seed
        if not cosine and options.policy not in POLICIES:
            logger.warning("[net] policy=%s is unknown, using a constant learning rate", options.policy)
        policies = _BY_POLICY | {"random": self._random}
        self._after_burn_in = _cosine if cosine else policies.get(options.policy, _constant)
        _refuse_incomplete(options, "cosine" if cosine else options.policy)

    def rate(self, iteration: int) -> float:
        """Learning rate of update number `iteration`."""
        options = self.options
        if iteration < options.burn_in:
            return options.learning_rate * math.pow(iteration / options.burn_in, options.power)
        return self._after_burn_in(options, iteration)

    def _random(self, options: ScheduleOptions, iteration: int) -> float:
        return options.learning_rate * math.pow(random.Random(f"{self.seed} {iteration}").random(), options.power)


def _refuse_incomplete(options: ScheduleOptions, policy: str) -> None:
    if policy == "steps" and not (options.steps and options.scales):
        raise InputError("[net] policy=steps needs steps and scales")
    if policy == "steps" and len(options.scales) < len(options.steps):
        raise InputError(
            f"[net] scales: has {len(options.scales)} values, expected one for each of {len(options.steps)} steps"
        )
    if policy in ("poly", "cosine") and not options.max_batches:
        raise InputError(f"[net] policy={policy} needs max_batches")
    if policy == "sgdr" and not (options.sgdr_cycle or options.max_batches):
        raise InputError("[net] policy=sgdr needs sgdr_cycle or max_batches")
    if policy == "step" and options.step < 1:
        raise InputError(f"[net] step={options.step}: expected at least 1")


def _single(value: float) -> float:
    """Round to single precision, as the original does: the difference is visible in high powers."""
    return float(np.float32(value))


def _constant(options: ScheduleOptions, iteration: int) -> float:
    return options.learning_rate


def _step(options: ScheduleOptions, iteration: int) -> float:
    return options.learning_rate * math.pow(_single(options.scale), iteration // options.step)


def _steps(options: ScheduleOptions, iteration: int) -> float:
    rate = options.learning_rate
    for step, scale in zip(options.steps, options.scales, strict=False):
        if step > iteration:
            break
        rate *= scale
    return rate


def _exp(options: ScheduleOptions, iteration: int) -> float:
    return options.learning_rate * math.pow(_single(options.gamma), iteration)


def _poly(options: ScheduleOptions, iteration: int) -> float:
    return options.learning_rate * math.pow(max(0.0, 1 - iteration / options.max_batches), options.power)


def _sigmoid(options: ScheduleOptions, iteration: int) -> float:
    exponent = min(options.gamma * (iteration - options.step), 700.0)
    return options.learning_rate / (1 + math.exp(exponent))


def _sgdr(options: ScheduleOptions, iteration: int) -> float:
    start, length = 0, options.sgdr_cycle or options.max_batches
    while start + length < iteration:
        start += length
        length *= options.sgdr_mult
    return _half_cosine(options, (iteration - start) / length)


def _cosine(options: ScheduleOptions, iteration: int) -> float:
    length = max(1, options.max_batches - options.burn_in)
    return _half_cosine(options, min(1.0, (iteration - options.burn_in) / length))


def _half_cosine(options: ScheduleOptions, part: float) -> float:
    low = options.learning_rate_min
    return low + 0.5 * (options.learning_rate - low) * (1 + math.cos(math.pi * part))


_BY_POLICY: dict[str, Callable[[ScheduleOptions, int], float]] = {
    "constant": _constant,
    "step": _step,
    "steps": _steps,
    "exp": _exp,
    "poly": _poly,
    "sigmoid": _sigmoid,
    "sgdr": _sgdr,
}

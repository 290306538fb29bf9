"""What the train loop expects of the parts it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn


class Batch(Protocol):
    """One forward pass. images: (n, channels, height, width), uint8 or in [0, 1]. truth: what the losses compare with."""

    @property
    def images(self) -> Tensor: ...
    @property
    def truth(self) -> Tensor: ...


class HeadLoss(Protocol):
    """Loss of one head, summed over pictures. terms: parts of the cost by name. targets: truths assigned to the head."""

    @property
    def objective(self) -> Tensor: ...
    @property
    def cost(self) -> float: ...
    @property
    def terms(self) -> dict[str, float]: ...
    @property
    def targets(self) -> int: ...


class Trained(Protocol):
    """The network's side of training; see models/training.py."""

    def begin(self, iteration: int) -> None: ...
    def losses(self, images: Tensor, truth: Tensor, seen: int) -> Sequence[HeadLoss]: ...
    def attack(self, images: Tensor, truth: Tensor, seen: int) -> Tensor: ...
    def statistics(self) -> list[Tensor]: ...
    def layer_names(self) -> Sequence[tuple[str, nn.Module]]: ...

"""What a box learns about its classes (yolo_layer.c and gaussian_yolo_layer.c, delta_..._class)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.heads.anchors import AnchorSection, read_class_map
from utils.errors import InputError

FOCAL_ALPHA = 0.5
FOCAL_GUARD = 1e-15


def class_factors(counters: Sequence[int] | None, most: float) -> list[float] | None:
    """Factor of each class: the most frequent one's count over its own, at most `most` (parser.c get_classes_multipliers)."""
    if counters is None:
        return None
    counts = [max(1, count) for count in counters]
    return [min(max(counts) / count, most) for count in counts]


@dataclass(frozen=True)
class ClassRule:
    """How the classes of a box change when it gets a target.

    The first target of a box sets all its classes; a later one finds something there and adds its own class only. "Something
    there" is asked of the class itself, or, in [Gaussian_yolo], of class 0 (`asks_first`).
    """

    factors: list[float] | None
    smoothing: float
    normalizer: float
    focal: bool = False
    asks_first: bool = False

    def factor(self, class_ids: Tensor) -> Tensor:
        """Factor (k,) of each target, 1 without counters_per_class."""
        if self.factors is None:
            return torch.ones(len(class_ids), device=class_ids.device)
        return torch.tensor(self.factors, device=class_ids.device)[class_ids]

    def apply(self, found: Tensor, delta: Tensor, class_ids: Tensor) -> Tensor:
        """Delta (k, classes) after one target more in each of k boxes, from the outputs and the delta so far, same shape."""
        classes = class_ids[:, None]
        mine = found.gather(1, classes)
        factor = self.factor(class_ids)[:, None]
        so_far = delta.gather(1, classes)
        asked = delta[:, :1] if self.asks_first else so_far
        one = self._smooth(torch.ones_like(mine)) - mine
        added = delta.scatter(1, classes, torch.where(one.isfinite(), one, so_far) * factor)
        return torch.where(asked != 0, added, self._all(found, delta, classes, mine, factor))

    def _all(self, found: Tensor, delta: Tensor, classes: Tensor, mine: Tensor, factor: Tensor) -> Tensor:
        target = torch.zeros_like(found).scatter(1, classes, 1.0)
        if self.focal:
            sure = mine + FOCAL_GUARD
            slope = -(1 - sure) * (2 * sure * sure.log() + sure - 1)
            return (target - found) * FOCAL_ALPHA * slope
        wanted = self._smooth(target) - found
        wanted = torch.where(wanted.isfinite(), wanted, delta)
        if self.factors is None:
            return wanted
        return torch.where(target > 0, wanted * factor * self.normalizer, wanted)

    def _smooth(self, target: Tensor) -> Tensor:
        return target * (1 - self.smoothing) + 0.5 * self.smoothing if self.smoothing else target


def class_rule(section: AnchorSection, *, focal: bool = False, asks_first: bool = False) -> ClassRule:
    """The rule that a section's keys describe."""
    factors = class_factors(section.counters_per_class, section.max_delta)
    return ClassRule(factors, section.label_smooth_eps, section.cls_normalizer, focal, asks_first)


def read_map(name: str | None, cfg_path: str, classes: int) -> list[int] | None:
    """The key `map`: class to learn for each class of the labels. Raises InputError for one that the head does not have."""
    if name is None:
        return None
    found = read_class_map(name, cfg_path)
    wrong = [each for each in found if not 0 <= each < classes]
    if wrong:
        raise InputError(f"{name}: maps to class {wrong[0]}, expected 0 to classes - 1 = {classes - 1}")
    return found

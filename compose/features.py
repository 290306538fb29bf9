"""What a backbone hands to a head, and the refusal when the two do not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from compose.net import Map, Net
from utils.errors import InputError


@dataclass(frozen=True)
class Features:
    """The maps a backbone offers, by stride in input pixels (8, 16, 32, ...)."""

    backbone: str
    maps: Mapping[int, Map]

    @property
    def last(self) -> Map:
        """The coarsest map, where a classifier sits."""
        return self.maps[max(self.maps)]

    def take(self, head: str, strides: Sequence[int], *, at_least: int = 1, even: bool = False) -> tuple[Map, ...]:
        """The maps at `strides`; InputError naming both sides when one is missing or unfit for the head."""
        offered = ", ".join(f"/{stride} ({self.maps[stride].channels} channels)" for stride in sorted(self.maps))
        wanted = ", ".join(f"/{stride}" for stride in strides)
        sides = f"head {head} reads {wanted}, backbone {self.backbone} offers {offered}"
        missing = [stride for stride in strides if stride not in self.maps]
        if missing:
            raise InputError(f"{sides}: nothing at " + ", ".join(f"/{stride}" for stride in missing))
        for stride in strides:
            channels = self.maps[stride].channels
            if channels < at_least or (even and channels % 2):
                expected = f"at least {at_least}" if channels < at_least else "an even number of"
                raise InputError(f"{sides}: expected {expected} channels at /{stride}, not {channels}")
        return tuple(self.maps[stride] for stride in strides)


Backbone = Callable[[Net], Features]
Head = Callable[[Net, Features], None]

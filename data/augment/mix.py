"""Reading the [net] keys of the augmentation the way the original does."""

from __future__ import annotations

import enum

from utils.errors import InputError
from utils.net_options import AugmentOptions


class Mix(enum.IntEnum):
    """How several images become one; the numbers are those of the `mixup` key."""

    NONE = 0
    MIXUP = 1
    CUTMIX = 2
    MOSAIC = 3
    CUTMIX_OR_MOSAIC = 4


def mix_of(options: AugmentOptions) -> Mix:
    """`cutmix` and `mosaic` override `mixup` (parse_net_options in src/parser.c). Raises InputError."""
    if options.cutmix or options.mosaic:
        if options.cutmix and options.mosaic:
            return Mix.CUTMIX_OR_MOSAIC
        return Mix.CUTMIX if options.cutmix else Mix.MOSAIC
    if options.mixup not in set(Mix):
        raise InputError(f"[net] mixup={options.mixup} is out of range, expected 0 to {max(Mix):d}")
    return Mix(options.mixup)


def colour_limits(options: AugmentOptions) -> tuple[float, float, float]:
    """Limits of hue, saturation and exposure; 0 for the last two means unchanged (load_thread in src/data.c)."""
    return options.hue, options.saturation or 1.0, options.exposure or 1.0

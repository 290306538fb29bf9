"""Number format of the forward pass."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch


@dataclass(kw_only=True)
class Precision:
    """dtype: of the forward pass. scaler: for float16, whose small gradients vanish otherwise."""

    dtype: torch.dtype = torch.float32
    scaler: torch.amp.GradScaler | None = None

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)

"""Gradients of a whole network as one vector."""

from __future__ import annotations

import torch
from torch import Tensor


def clip_norm(gradients: list[Tensor], limit: float) -> bool:
    """Shrink all gradients by one factor so that the norm of all of them together is at most `limit` (0: no limit).

    Returns false, and changes nothing, if one of them is not finite.
    """
    if not gradients:
        return True
    norms = torch.stack(torch._foreach_norm(gradients))
    if not bool(torch.isfinite(norms).all()):
        return False
    norm = float(torch.linalg.vector_norm(norms)) if limit else 0.0
    if norm > limit:
        torch._foreach_mul_(gradients, limit / norm)
    return True

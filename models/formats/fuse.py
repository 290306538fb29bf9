"""Converts a network to an equivalent one without batch normalisation."""

from __future__ import annotations

import torch

from models.layers.base import blank_weights
from models.network import Network
from models.plan import make_plan
from utils.errors import InputError

_KEYS = ("batch_normalize", "cbn")
TOLERANCE = 1e-4


def without_batch_norm(network: Network) -> Network:
    """Return a network whose cfg has no batch_normalize, with the normalisation of `network` folded into its weights.

    `network` cannot be saved afterwards. Both networks are run once on random values. Raises InputError if their outputs
    differ by more than rounding, or if two layers share weights and only one of them normalises.
    """
    cfg = network.plan.cfg
    for step in network.plan.steps:
        given = {key: 0 for key in _KEYS if any(entry.key == key for entry in step.raw.entries)}
        if given:
            cfg = cfg.with_values(step.index + 1, given)
    net = network.plan.net
    with blank_weights():
        fused = Network(make_plan(cfg, width=net.width or None, height=net.height or None)).eval()
    shape = network.plan.input
    images = torch.rand(1, shape.channels, shape.height, shape.width)
    with torch.inference_mode():
        before = network(images)
    network.fold()
    _copy(network, fused)
    fused.seen, fused.version = network.seen, network.version
    with torch.inference_mode():
        after = fused(images)
    for one, other in zip(before, after, strict=True):
        error = float((one - other).abs().max()) / max(float(one.std()), 1e-12)
        if not error <= TOLERANCE:
            raise InputError(
                f"{cfg.path}: without batch normalisation, its outputs differ (by {error:.2g} standard deviations)"
            )
    return fused


def _copy(folded: Network, fused: Network) -> None:
    for step, source, target in zip(folded.plan.steps, folded, fused, strict=True):
        pairs = list(zip(source.stored(), target.stored(), strict=False))
        if [one.kind for one in source.stored()] != [one.kind for one in target.stored()]:
            raise step.site.error("the normalisation of this layer cannot be folded into its weights")
        with torch.no_grad():
            for one, other in pairs:
                other.tensor.copy_(one.tensor)

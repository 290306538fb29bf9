"""Loads a network from a cfg file and, optionally, a weights file."""

from __future__ import annotations

from pathlib import Path

import torch

from models.layers.base import blank_weights
from models.network import Network
from models.plan import read_plan
from models.weights import load_weights
from utils.device import select_device


def load(
    cfg: str | Path,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    *,
    width: int | None = None,
    height: int | None = None,
    partial: bool = False,
) -> Network:
    """Load a network, ready for inference.

    weights: a .weights file; without one the weights are random, as at the start of training.
    width, height: input size in pixels, if other than the cfg's.
    partial: load as much of the weights as fits (see models.weights.load_weights).
    Raises InputError for a cfg or weights file that cannot be used.
    """
    chosen = select_device(device) if isinstance(device, str) else device
    plan = read_plan(cfg, width=width, height=height)
    if weights is None or partial:
        network = Network(plan)
    else:
        with blank_weights():
            network = Network(plan)
    if weights is not None:
        load_weights(network, weights, partial=partial)
    return network.to(chosen).eval()

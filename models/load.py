"""The doors to a network: cfg path, optional weights, device."""

from __future__ import annotations

from pathlib import Path

import torch

from models.initial import blank_weights
from models.network import Network
from models.plan import read_plan
from models.predictor import Predictor
from models.weights import load_weights
from utils.device import select_device
from utils.errors import InputError


def load(
    cfg: str | Path,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    *,
    width: int | None = None,
    height: int | None = None,
    partial: bool = False,
) -> Network:
    """The network of a cfg file, ready for inference.

    weights: a .weights file; without one the weights are random, as at the start of training. width, height: another
    input size than the cfg's, in pixels. partial: load what fits of the weights (see models.weights.load_weights).
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


def load_predictor(
    cfg: str | Path,
    weights: str | Path,
    device: str | torch.device = "cpu",
    *,
    width: int | None = None,
    height: int | None = None,
    partial: bool = False,
    half: bool = False,
    mirrored: bool = False,
) -> Predictor:
    """A network with boxes, folded for inference on its device: `load_predictor(...).predict(pictures)`.

    half: 16-bit floats, on a GPU only. mirrored: look at the mirror image of each picture too. For the rest see `load`.
    Raises InputError as `load` does, and for a cfg without boxes.
    """
    device = select_device(device) if isinstance(device, str) else device
    if half and device.type == "cpu":
        raise InputError("half: 16-bit floats are for a GPU, the device is the cpu")
    network = load(cfg, weights, device, width=width, height=height, partial=partial).fold(pack=device.type == "cpu")
    return Predictor(network.half() if half else network, device, half=half, mirrored=mirrored)

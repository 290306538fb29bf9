"""PyTorch files of other programs: their tensors, taken over in order.

Programs that build a Darknet network from its cfg hold its tensors layer by layer: weights, then of the normalisation scales,
biases, mean and variance, or else the biases. Names are not looked at, shapes are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError  # only the name of torch.load's refusal
from typing import Any

import torch
from torch import Tensor, nn

from models.layers.base import Stored
from models.network import Network
from utils.errors import InputError

_ORDER = ("weights", "scales", "biases", "rolling_mean", "rolling_variance", "shortcut_weights", "implicit_weights")
_NESTED = ("ema", "model", "state_dict", "model_state_dict", "net")


def set_foreign(network: Network, content: Any, path: str | Path) -> None:
    """Copy the tensors in the content of another program's PyTorch file into `network`.

    Raises InputError, before anything has changed, when a shape differs or when tensors are left over.
    """
    found = list(_tensors(content, str(path)))
    wanted = list(_in_their_order(network))
    for (name, tensor), (index, item) in zip(found, wanted, strict=False):
        if tensor.numel() != item.tensor.numel() or not tensor.is_floating_point():
            place = f"layer {index} [{network.plan.steps[index].raw.name}]"
            shapes = f"{tuple(tensor.shape)}, expected {tuple(item.tensor.shape)}"
            raise InputError(f"{path}: {name} has shape {shapes} for the {item.kind} of {place}")
    if len(found) != len(wanted):
        raise InputError(f"{path}: has {len(found)} tensors, {network.plan.cfg.path} needs {len(wanted)}")
    with torch.no_grad():
        for (_, tensor), (_, item) in zip(found, wanted, strict=True):
            item.tensor.copy_(tensor.float().reshape(item.tensor.shape))


def unpickle(path: str | Path) -> Any:
    """The content of a PyTorch file by Python's pickle, which runs whatever code the file asks for. Raises InputError."""
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except (UnpicklingError, RuntimeError, ImportError, AttributeError, EOFError) as error:
        raise InputError(f"{path}: cannot be unpickled: {str(error).splitlines()[0]}") from None


def _tensors(content: Any, place: str) -> Iterator[tuple[str, Tensor]]:
    while isinstance(content, dict):
        inner = next((content[key] for key in _NESTED if isinstance(content.get(key), dict | nn.Module)), None)
        if inner is None:
            break
        content = inner
    state = content.state_dict() if isinstance(content, nn.Module) else content
    if not isinstance(state, dict):
        raise InputError(f"{place}: expected tensors by name, found {type(state).__name__}")
    for name, tensor in state.items():
        if isinstance(tensor, Tensor) and not name.endswith(("num_batches_tracked", "anchors", "anchor_grid")):
            yield name, tensor


def _in_their_order(network: Network) -> Iterator[tuple[int, Stored]]:
    for index, layer in enumerate(network):
        for item in sorted(layer.stored(), key=lambda stored: _ORDER.index(stored.kind)):
            yield index, item

"""The tensors of a network by name, without those that are the same one under another name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from models.network import Network
from utils.errors import InputError


def state_of(network: Network) -> dict[str, Tensor]:
    """Every tensor once, by the name that PyTorch gives it, on the CPU in float32; layers with share_index own none."""
    assert not network.is_folded, "a folded network has lost its batch normalisation"
    held: set[int] = set()
    state = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if id(tensor) not in held:
            held.add(id(tensor))
            state[name] = tensor.detach().to("cpu", torch.float32).contiguous()
    return state


def set_state(network: Network, state: Mapping[str, Tensor], place: str) -> None:
    """Copy tensors by name. Raises InputError, before anything has changed, when they are not exactly the network's."""
    own: dict[str, Tensor] = network.state_dict(keep_vars=True)
    needed = set(state_of(network))
    wrong = sorted(needed - set(state)) or sorted(set(state) - set(own))
    if wrong:
        kind = "is missing" if wrong[0] in needed else "is none of the network's"
        raise InputError(f"{place}: {wrong[0]} {kind} ({len(wrong)} such tensors); it is of another cfg")
    for name, tensor in state.items():
        _check(tensor, own[name], f"{place}: {name}")
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)


def _check(tensor: Tensor, own: Tensor, place: str) -> None:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        raise InputError(f"{place}: expected a tensor of floats")
    if tensor.shape != own.shape:
        raise InputError(f"{place}: has shape {tuple(tensor.shape)}, expected {tuple(own.shape)}; it is of another cfg")
    if not torch.isfinite(tensor).all():
        raise InputError(f"{place}: has values that are not finite; the file is damaged or its training diverged")

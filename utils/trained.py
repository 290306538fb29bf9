"""How one tensor of a network is trained: what the network's side says of it to the optimizer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TrainedTensor:
    """A tensor that weight updates change, and the rules for it.

    layer: index of the layer it belongs to. rate_factor: on the learning rate. decay: whether weight decay applies.
    adam: whether it is updated by Adam where Adam is chosen. centred: the mean of each output's update is taken out.
    update_limit: largest magnitude of the summed update; 0: none. weight_limit: largest magnitude of the tensor itself
    after an update; 0: none. first_iteration: iterations before it leave the tensor alone (they count from 1).
    """

    tensor: Tensor
    layer: int
    rate_factor: float = 1.0
    decay: bool = False
    adam: bool = True
    centred: bool = False
    update_limit: float = 0.0
    weight_limit: float = 0.0
    first_iteration: int = 0

"""Making a network with random weights fit to be timed."""

from __future__ import annotations

import torch

from models.network import Network

# Uniform weights of variance 2/3 per input, halved in power by a rectifier, keep their power under this variance.
STEADY_VARIANCE = 1 / 3


def steady(network: Network) -> Network:
    """Give `network` rolling statistics under which random weights neither overflow nor fade to denormal numbers.

    A fresh network has zero for them, as in the original; trained ones need none of this.
    """
    with torch.no_grad():
        for _, item in network.stored():
            if item.kind == "rolling_variance":
                item.tensor.fill_(STEADY_VARIANCE)
    return network

"""Convolution, bias and activation in one call of oneDNN, for inference in float32 on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.activations import Activation
from models.layers.base import Layer, Shape

# Activations that oneDNN applies while it writes the result: cfg word -> (its name, its constants).
_POSTOPS: dict[str, tuple[str, list[float]]] = {
    "linear": ("none", []),
    "relu": ("relu", []),
    "leaky": ("leaky_relu", [0.1]),
    "logistic": ("sigmoid", []),
    "tanh": ("tanh", []),
    "swish": ("swish", []),
}


def can_pack(weights: Tensor) -> bool:
    """Whether this PyTorch can pack `weights` (a float32 CPU tensor) for oneDNN."""
    return (
        weights.device.type == "cpu"
        and weights.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


class PackedConvolution(Layer):
    """Input (n, c, h, w) float32 on the CPU, output (n, filters, h', w'); the weights are stored in oneDNN's own layout.

    geometry: padding, strides (y, x), dilation and groups. expected: the input's shape, for which the layout is chosen;
    other sizes work too.
    """

    def __init__(
        self,
        weights: Tensor,
        biases: Tensor,
        activation: Activation,
        expected: Shape,
        geometry: tuple[list[int], list[int], list[int], int],
    ) -> None:
        super().__init__()
        self._geometry = geometry
        size = [1, expected.channels, expected.height, expected.width]
        with torch.no_grad():
            # An opaque tensor, kept out of the parameters because PyTorch can neither move nor copy it.
            self._packed: Any = torch.ops.aten.mkldnn_reorder_conv2d_weight(weights.to_mkldnn(), *geometry, size)
        self._biases = biases.detach()
        self._postop = _POSTOPS.get(activation.name)
        self._activate = activation

    def forward(self, x: Tensor) -> Tensor:
        name, constants = self._postop or ("none", [])
        y = torch.ops.mkldnn._convolution_pointwise(x, self._packed, self._biases, *self._geometry, name, constants, "")
        return y if self._postop else self._activate(y)

    def with_sum(self, activation: Activation) -> PackedSum | None:
        """This convolution plus another tensor, then `activation`; None if the convolution has an activation itself."""
        if self._activate.name != "linear":
            return None
        return PackedSum(self._packed, self._biases, self._geometry, activation)


class PackedSum(Layer):
    """activation(convolution(x) + other): x (n, c, h, w), other and output (n, filters, h', w'), float32 on the CPU."""

    def __init__(
        self, packed: Any, biases: Tensor, geometry: tuple[list[int], list[int], list[int], int], activation: Activation
    ) -> None:
        super().__init__()
        self._packed, self._biases, self._geometry, self._activate = packed, biases, geometry, activation

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        # After a sum oneDNN offers relu at most, so the activation is applied in place.
        return self._activate(
            torch.ops.mkldnn._convolution_pointwise.binary(
                x, other, self._packed, self._biases, *self._geometry, "add", 1.0, None, [], None
            )
        )


class Identity(Layer):
    """Returns its input, where the next layer does this one's work too."""

    def forward(self, x: Tensor) -> Tensor:
        return x

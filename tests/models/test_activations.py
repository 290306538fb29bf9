"""Activation functions and their gradients in the original (activations.h, activations.c)."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch

from models.activations import ACTIVATIONS, Activation

X = np.array(
    [-25.5, -6.5, -4.5, -3.1, -2.25, -1.5, -1.2, -0.7, -0.3, 0.2, 0.6, 0.9, 1.5, 2.3, 3.1, 4.4, 5.7, 7.5, 21.5]
)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _softplus(x: float) -> float:
    return x if x > 20 else math.exp(x) if x < -20 else math.log(math.exp(x) + 1)


def _stair(x: float) -> float:
    whole = math.floor(x)
    return math.floor(x / 2) if whole % 2 == 0 else x - whole + math.floor(x / 2)


def _plse(x: float) -> float:
    return 0.01 * (x + 4) if x < -4 else 0.01 * (x - 4) + 1 if x > 4 else 0.125 * x + 0.5


def _lhtan(x: float) -> float:
    return 0.001 * x if x < 0 else 0.001 * (x - 1) + 1 if x > 1 else x


def _gelu(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(0.797885 * x + 0.035677 * x**3))


def _gelu_gradient(y: float) -> float:
    inner = 0.0356774 * y**3 + 0.797885 * y
    slope = (0.0535161 * y**3 + 0.398942 * y) / math.cosh(min(abs(inner), 300)) ** 2
    return 0.5 * math.tanh(inner) + slope + 0.5


def _mish_gradient(x: float) -> float:
    soft = _softplus(x)
    bent = math.tanh(soft)
    return x * (1 - bent * bent) * (1 - math.exp(-soft)) + bent


# name: (value of x, gradient as a function of the output y)
OF_OUTPUT = {
    "linear": (lambda x: x, lambda y: 1),
    "logistic": (_sigmoid, lambda y: (1 - y) * y),
    "loggy": (lambda x: 2 * _sigmoid(x) - 1, lambda y: 2 * (1 - (y + 1) / 2) * (y + 1) / 2),
    "relu": (lambda x: max(x, 0), lambda y: y > 0),
    "relu6": (lambda x: min(max(x, 0), 6), lambda y: 0 < y < 6),
    "elu": (lambda x: x if x >= 0 else math.exp(x) - 1, lambda y: 1 if y >= 0 else y + 1),
    "selu": (
        lambda x: 1.0507 * x if x >= 0 else 1.0507 * 1.6732 * (math.exp(x) - 1),
        lambda y: 1.0507 if y >= 0 else y + 1.0507 * 1.6732,
    ),
    "gelu": (_gelu, _gelu_gradient),
    "relie": (lambda x: x if x > 0 else 0.01 * x, lambda y: 1 if y > 0 else 0.01),
    "ramp": (lambda x: x * (x > 0) + 0.1 * x, lambda y: (y > 0) + 0.1),
    "leaky": (lambda x: x if x > 0 else 0.1 * x, lambda y: 1 if y > 0 else 0.1),
    "revleaky": (lambda x: x if x > 0 else 0.1 * x, lambda y: 1 if y > 0 else 0.1),
    "tanh": (math.tanh, lambda y: 1 - y * y),
    "plse": (_plse, lambda y: 0.01 if y < 0 or y > 1 else 0.125),
    "stair": (_stair, lambda y: 0 if math.floor(y) == y else 1),
    "hardtan": (lambda x: min(max(x, -1), 1), lambda y: -1 < y < 1),
    "lhtan": (_lhtan, lambda y: 1 if 0 < y < 1 else 0.001),
}

# name: (value of x, gradient as a function of x)
OF_INPUT = {
    "swish": (lambda x: x * _sigmoid(x), lambda x: x * _sigmoid(x) + _sigmoid(x) * (1 - x * _sigmoid(x))),
    "mish": (lambda x: x * math.tanh(_softplus(x)), _mish_gradient),
    "hard_mish": (
        lambda x: x if x > 0 else x * x / 2 + x if x > -2 else 0,
        lambda x: 1 if x > 0 else x + 1 if x > -2 else 0,
    ),
}

ACROSS_CHANNELS = {"normalize_channels", "normalize_channels_softmax", "normalize_channels_softmax_maxval"}


def test_every_function_is_in_a_table() -> None:
    assert set(ACTIVATIONS) == {*OF_OUTPUT, *OF_INPUT, *ACROSS_CHANNELS}


@pytest.mark.parametrize("name", [*OF_OUTPUT, *OF_INPUT])
def test_value_and_gradient(name: str) -> None:
    value, gradient = OF_OUTPUT.get(name) or OF_INPUT[name]
    x = torch.tensor(X, requires_grad=True)
    y = Activation(name, owned=True)(x)
    y.sum().backward()
    expected = [value(v) for v in X]
    at = expected if name in OF_OUTPUT else X
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-6, atol=1e-7)
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), [float(gradient(v)) for v in at], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*OF_OUTPUT, *OF_INPUT, *sorted(ACROSS_CHANNELS)])
def test_an_owned_input_gives_the_same_values(name: str) -> None:
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Activation(name, owned=True)(x.clone()), Activation(name)(x))


@pytest.mark.parametrize("name", sorted(ACROSS_CHANNELS))
def test_normalized_channels(name: str) -> None:
    x = torch.randn(2, 5, 3, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    y = Activation(name)(x)
    y.backward(grad)
    a = x.detach().numpy()
    if name == "normalize_channels":
        parts = np.maximum(a, 0)
    else:
        parts = np.exp(a - a.max(1, keepdims=True) if name.endswith("maxval") else a)
    expected = parts / (parts.sum(1, keepdims=True) + 1e-4)
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-5, atol=1e-7)
    slope = (expected * grad.numpy()).sum(1, keepdims=True)
    kept = grad.numpy() if name == "normalize_channels" else grad.numpy() * slope
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), np.where(expected > 0, grad.numpy() * slope, kept), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("owned", [False, True])
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_a_pickled_activation_is_the_same(name: str, owned: bool) -> None:
    x = torch.from_numpy(X).reshape(1, -1, 1, 1)
    activation = Activation(name, owned=owned)
    assert torch.equal(pickle.loads(pickle.dumps(activation))(x.clone()), activation(x.clone()))

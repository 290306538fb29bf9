"""PyTorch files of other programs that build a Darknet network from its cfg.

Keys of the form `module_list.I.Conv2d.weight`, with I the layer's index in the cfg, are matched by name. Other files must
hold the tensors layer by layer: weights, then either the scales, biases, mean and variance of the normalisation, or the
biases. Those are matched by order, and only their shapes are checked. If the cfg begins with [batchnorm] and the file does
not, the images of that program are taken to be normalised as torchvision does it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError  # raised by torch.load; nothing is unpickled here
from typing import Any

import torch
from torch import Tensor, nn

from models.batchnorm import EPS
from models.layers.base import Stored, StoredKind
from models.layers.normalization import BatchnormSection
from models.network import Network
from utils.errors import InputError
from utils.torch_files import is_plain_floats

logger = logging.getLogger(__name__)

_ORDER = ("weights", "scales", "biases", "rolling_mean", "rolling_variance", "shortcut_weights", "implicit_weights")
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in [0, 1]
_MOST_NESTED = 10
_NESTED = ("ema", "model", "state_dict", "model_state_dict", "net")
_NAMED = re.compile(r"(?:module\.)?(?:model\.)?module_list\.(\d+)\.([\w.]+)")
_KINDS: dict[str, StoredKind] = {
    "Conv2d.weight": "weights",
    "Conv2d.bias": "biases",
    "BatchNorm2d.weight": "scales",
    "BatchNorm2d.bias": "biases",
    "BatchNorm2d.running_mean": "rolling_mean",
    "BatchNorm2d.running_var": "rolling_variance",
    "w": "shortcut_weights",
    "implicit": "implicit_weights",
}

Pair = tuple[str, Tensor, int, Stored]  # name and tensor in the file, layer index and tensor of the network


def set_foreign(network: Network, content: Any, path: str | Path) -> None:
    """Copy the tensors of another program's PyTorch file into `network`.

    Raises InputError, before changing anything, if a shape differs or if tensors are missing or left over.
    """
    found = dict(_tensors(content, str(path)))
    named = {name: match for name in found if (match := _NAMED.fullmatch(name)) and match[2] in _KINDS}
    pairs = list(_by_name(network, found, named, path) if len(named) == len(found) else _by_order(network, found, path))
    for name, tensor, index, item in pairs:
        if not is_plain_floats(tensor):
            raise InputError(f"{path}: {name}: expected a tensor of floats, found {tensor.dtype}, {tensor.layout}")
        if tensor.numel() != item.tensor.numel():
            place = f"layer {index} [{network.plan.steps[index].raw.name}]"
            shapes = f"{tuple(tensor.shape)}, expected {tuple(item.tensor.shape)}"
            raise InputError(f"{path}: {name} has shape {shapes} for the {item.kind} of {place}")
    how = "by layer number and name" if len(named) == len(found) else "by order and shape"
    logger.warning("%s: is a file of another program, its tensors were matched %s", path, how)
    if any(item.kind == "shortcut_weights" for *_, item in pairs):
        logger.warning(
            "%s: shortcut weights are used with the weights_normalization of %s; "
            "a program with another normalisation gives other outputs",
            *(path, network.plan.cfg.path),
        )
    with torch.no_grad():
        for _, tensor, _, item in pairs:
            item.tensor.copy_(tensor.float().reshape(item.tensor.shape))


def unpickle(path: str | Path) -> Any:
    """Load a PyTorch file with Python's pickle, which runs any code in the file. Raises InputError."""
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except (UnpicklingError, RuntimeError, ImportError, AttributeError, EOFError) as error:
        raise InputError(f"{path}: cannot be unpickled: {str(error).splitlines()[0]}") from None


def _tensors(content: Any, place: str) -> Iterator[tuple[str, Tensor]]:
    for _ in range(_MOST_NESTED):  # a dictionary in a pickle can contain itself
        values = content if isinstance(content, dict) else {}
        content = next((values[key] for key in _NESTED if isinstance(values.get(key), dict | nn.Module)), content)
    state = content.state_dict() if isinstance(content, nn.Module) else content
    if not isinstance(state, dict):
        raise InputError(f"{place}: expected tensors by name, found {type(state).__name__}")
    for name, tensor in state.items():
        if (
            isinstance(tensor, Tensor)
            and isinstance(name, str)
            and not name.endswith(("num_batches_tracked", "anchors", "anchor_grid"))
        ):
            yield name, tensor


def _by_name(
    network: Network, found: dict[str, Tensor], named: dict[str, re.Match[str]], path: str | Path
) -> Iterator[Pair]:
    wanted = {(index, item.kind): item for index, item in network.stored()}
    for name, match in named.items():
        index, kind = int(match[1]), _KINDS[match[2]]
        item = wanted.pop((index, kind), None)
        if item is None:
            raise InputError(f"{path}: {name} has no counterpart in {network.plan.cfg.path}")
        yield name, found[name], index, item
    if wanted:
        index, kind = next(iter(wanted))
        place = f"layer {index} [{network.plan.steps[index].raw.name}]"
        raise InputError(f"{path}: lacks the {kind} of {place} in {network.plan.cfg.path}")


def _by_order(network: Network, found: dict[str, Tensor], path: str | Path) -> Iterator[Pair]:
    wanted = [
        (index, item)
        for index, layer in enumerate(network)
        for item in sorted(layer.stored(), key=lambda stored: _ORDER.index(stored.kind))
    ]
    first = network.plan.steps[0]
    added = _input_normalisation() if isinstance(first.section, BatchnormSection) and first.shape.channels == 3 else {}
    if added and len(found) == len(wanted) - len(added):
        logger.warning("%s: does not normalise images; layer 0 now does, by ImageNet's mean and deviation", path)
        found = {**added, **found}
    for (name, tensor), (index, item) in zip(found.items(), wanted, strict=False):
        yield name, tensor, index, item
    if len(found) != len(wanted):
        raise InputError(f"{path}: has {len(found)} tensors, {network.plan.cfg.path} needs {len(wanted)}")


def _input_normalisation() -> dict[str, Tensor]:
    """The tensors of a [batchnorm] that computes (image - mean) / deviation."""
    mean, deviation = torch.tensor(_MEAN), torch.tensor(_DEVIATION)
    tensors = (torch.ones(3), torch.zeros(3), mean, deviation.double() ** 2 - EPS)
    return dict(zip(("scales", "biases", "mean", "variance"), tensors, strict=True))

"""Commands without images: cut, average and rewrite weights files, `statistics`, `ops` and `speed` (darknet.c)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from darknet_cli.grammar import Words
from darknet_cli.network import device_of, print_network, print_weights, stderr, stdout
from models.formats.fuse import without_batch_norm
from models.layers.base import Layer, StoredKind, blank_weights
from models.network import Network
from models.plan import Plan, Step, make_plan
from models.weights import load_weights, save_weights
from utils.device import select_device
from utils.errors import InputError, RunError
from utils.files import is_folder

_NORM: tuple[StoredKind, ...] = ("scales", "rolling_mean", "rolling_variance")


def _network(plan: Plan, weights: str | None, *, cutoff: int | None = None) -> Network:
    """Build the network of a cfg with the weights of a file, random ones without a file."""
    print_weights(plan, weights)
    if weights is None:
        return Network(plan).eval()
    with blank_weights():
        network = Network(plan)
    load_weights(network, weights, cutoff=cutoff)
    return network.eval()


def _opened(words: Words) -> Network:
    return _network(print_network(words.at(1, "the cfg file"), batch=None, train=True), words.get(2))


def _tensors(network: Network, index: int) -> dict[StoredKind, Tensor]:
    """Return the stored tensors of a layer that has one of each kind."""
    return {item.kind: item.tensor for at, item in network.stored() if at == index}


def _is(step: Step, *names: str) -> bool:
    """Return whether a layer has one of the types, given by the first of their names."""
    return step.section.names[0] in names


def _save(network: Network, path: str, *, cutoff: int | None = None) -> None:
    """Write a weights file and print the original's lines. Its folder must exist, as in the original."""
    stderr(f"Saving weights to {path}")
    for index, item in network.stored():
        if item.kind == "shortcut_weights" and (cutoff is None or index < cutoff):
            values = item.tensor.detach().flatten().tolist()
            stdout("".join(f" {value:f}, " for value in values) + f" l.nweights = {len(values)} \n\n")
    if not is_folder(Path(path).parent):
        raise RunError(f"{path}: cannot be written: there is no such folder")
    save_weights(network, path, cutoff=cutoff)


def _save_trained(network: Network, path: str) -> None:
    """Like `_save`, but round the images seen to whole batches of the cfg, as the original does (parser.c save_weights)."""
    batch = max(1, network.plan.net.batch)
    network.seen = network.seen // batch * batch
    _save(network, path)


def partial(words: Words) -> None:
    """`partial CFG WEIGHTS OUT N`: the first N layers."""
    number = words.at(4, "the number of layers")
    if not number.isdecimal():
        raise InputError(f"{number}: expected a number of layers")
    plan = print_network(words.words[1])
    network = _network(plan, words.words[2], cutoff=min(int(number), len(plan.steps)))
    network.seen = 0
    _save(network, words.words[3], cutoff=int(number))


@torch.no_grad()
def average(words: Words) -> None:
    """`average CFG OUT WEIGHTS...`: convolutions, and weights and biases of [connected]; the rest is from the first file."""
    first = words.at(3, "a weights file")
    plan = print_network(words.words[1], batch=None, train=True)
    print_network(words.words[1], batch=None, train=True)
    total = _network(plan, first)
    for path in words.words[4:]:
        other = _network(plan, path)
        for step in plan.steps:
            for kind, tensor in _averaged(total, step).items():
                tensor += _tensors(other, step.index)[kind]
    for step in plan.steps:
        for tensor in _averaged(total, step).values():
            tensor *= float(np.float32(1 / (len(words.words) - 3)))
    _save_trained(total, words.words[2])


def _averaged(network: Network, step: Step) -> dict[StoredKind, Tensor]:
    if not _is(step, "convolutional", "connected"):
        return {}
    found = _tensors(network, step.index)
    return {k: v for k, v in found.items() if _is(step, "convolutional") or k in ("biases", "weights")}


def _rewriting(edit: Callable[[Network], Network]) -> Callable[[Words], None]:
    """Return a command `NAME CFG WEIGHTS OUT` that writes what `edit` makes of the network."""

    @torch.no_grad()
    def command(words: Words) -> None:
        out = words.at(3, "the file to write")
        _save_trained(edit(_opened(words)), out)

    return command


@_rewriting
def denormalize(network: Network) -> Network:
    """Return equivalent weights for the cfg without batch_normalize."""
    return without_batch_norm(network)


@_rewriting
def reset(network: Network) -> Network:
    """Fold normalisations like `denormalize`, but keep identity ones in the file."""
    with blank_weights():
        kept = Network(network.plan)
    kept.seen, kept.version = network.seen, network.version
    kept.load_state_dict(network.state_dict())
    for step, layer, target in zip(kept.plan.steps, without_batch_norm(network), kept, strict=True):
        if _is(step, "convolutional", "connected", "gru", "lstm"):
            _copy_stored(layer, target, {"scales": 1.0, "rolling_mean": 0.0, "rolling_variance": 1.0})
    return kept


@_rewriting
def normalize(network: Network) -> Network:
    """Add normalisations (scale 1, mean 0, variance 0) to layers without, for batch_normalize=1."""
    cfg, changed = network.plan.cfg, set()
    for step, layer in zip(network.plan.steps, network, strict=True):
        normalized = any(item.kind in _NORM for item in layer.stored())
        if _is(step, "convolutional", "connected") and not normalized:
            cfg = cfg.with_values(step.index + 1, {"batch_normalize": 1})
            changed.add(step.index)
        elif _is(step, "gru", "lstm") and normalized:
            changed.add(step.index)
    with blank_weights():
        wider = Network(make_plan(cfg))
    wider.seen, wider.version = network.seen, network.version
    for index, (layer, target) in enumerate(zip(network, wider, strict=True)):
        added = {"scales": 1.0, "rolling_mean": 0.0, "rolling_variance": 0.0} if index in changed else {}
        _copy_stored(layer, target, added)
    return wider


def _copy_stored(layer: Layer, target: Layer, norm: Mapping[str, float]) -> None:
    """Copy the stored tensors of a layer, except that those of its normalisation get the values `norm`, if given."""
    sources = [item.tensor for item in layer.stored() if item.kind not in norm]
    for item in target.stored():
        if item.kind in norm:
            item.tensor.fill_(norm[item.kind])
        else:
            item.tensor.copy_(sources.pop(0))


@_rewriting
def rescale(network: Network) -> Network:
    """Change the first convolution for images in [0, 1] instead of [-1, 1]."""
    if tensors := _first_convolution(network):
        tensors["weights"] *= 2
        tensors["biases"] += -0.5 * tensors["weights"].flatten(1).sum(1)
    return network


@_rewriting
def rgbgr(network: Network) -> Network:
    """Change the first convolution for images with red and blue swapped."""
    if tensors := _first_convolution(network):
        tensors["weights"].copy_(tensors["weights"].flip(1))
    return network


def _first_convolution(network: Network) -> dict[StoredKind, Tensor]:
    """Return the stored tensors of the first convolution; none if its input has no three channels."""
    first = next((step.index for step in network.plan.steps if _is(step, "convolutional")), None)
    tensors = {} if first is None else _tensors(network, first)
    return tensors if tensors and tensors["weights"].shape[1] == 3 else {}


_PARTS = {  # printed parts of a recurrent layer: name, index among its connected layers in the weights file
    "gru": (("Input Z", 0), ("Input R", 1), ("Input H", 2), ("State Z", 3), ("State R", 4), ("State H", 5)),
    "lstm": (("wf", 1), ("wi", 0), ("wg", 3), ("wo", 2), ("uf", 5), ("ui", 4), ("ug", 7), ("uo", 6)),
}


def statistics(words: Words) -> None:
    """`statistics CFG WEIGHTS`: statistics of connected layers with batch normalisation; every layer ends with an empty line."""
    network = _opened(words)
    for step in network.plan.steps:
        kind = step.section.names[0]
        by_kind: dict[StoredKind, list[Tensor]] = {}
        for index, item in network.stored():
            if index == step.index:
                by_kind.setdefault(item.kind, []).append(item.tensor)
        if "scales" in by_kind and kind in ("connected", *_PARTS):
            stdout(f"{'Connected' if kind == 'connected' else kind.upper()} Layer {step.index}\n")
            for name, place in _PARTS.get(kind, (("", 0),)):
                stdout(f"{name}\n" if name else "")
                scales, biases, weights = (by_kind[each][place] for each in ("scales", "biases", "weights"))
                # The original uses only as many weights as there are outputs (connected_layer.c statistics_connected_layer).
                shown = (("Scales", scales), ("Biases", biases), ("Weights", weights.flatten()[: len(scales)]))
                stdout("".join(f"{title} {_described(values)}\n" for title, values in shown))
        stdout("\n")


def _described(values: Tensor) -> str:
    wide = values.detach().double()
    mean, squares, variance = wide.mean(), wide.square().mean(), wide.var(unbiased=False)
    return f"MSE: {float(squares.sqrt()):.6f}, Mean: {float(mean):.6f}, Variance: {float(variance):.6f}"


def ops(words: Words) -> None:
    """`ops CFG`: two operations per weight and position of convolutions (ignoring groups), two per connection."""
    total = 0
    for step in print_network(words.at(1, "the cfg file"), batch=None, train=True).steps:
        if _is(step, "convolutional"):
            kernel = step.section.size**2 * step.site.input.channels  # type: ignore[attr-defined]
            total += 2 * kernel * step.shape.outputs
        elif _is(step, "connected", "rnn", "gru", "lstm"):
            total += 2 * step.cost.weights
    stdout(f"Floating Point Operations: {total}\nFloating Point Operations: {total / 1e9:.2f} Bn\n")


def speed(words: Words) -> None:
    """`speed CFG [N]`: time N evaluations (default 1000) of a network with random weights, one image at a time."""
    number = words.get(2) or "0"
    if not number.isdecimal():
        raise InputError(f"{number}: expected a number of evaluations")
    count = int(number) or 1000
    plan = print_network(words.at(1, "the cfg file"), batch=None, train=True)
    device = select_device(device_of(words))
    network = Network(plan).to(device).fold()
    shape = plan.input
    image = torch.zeros(1, shape.channels, shape.height, shape.width, device=device)
    with torch.inference_mode():
        start = time.perf_counter()
        for _ in range(count):
            network(image)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
    stdout(
        f"\n{count} evals, {seconds:f} Seconds\nSpeed: {seconds / count:f} sec/eval\nSpeed: {count / seconds:f} Hz\n"
    )

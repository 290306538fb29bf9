"""Reads and writes networks in any format, recognised by content when reading and by extension when writing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from models.formats.checkpoint import Described, from_checkpoint, save_checkpoint_model, set_state
from models.formats.foreign import set_foreign, unpickle
from models.formats.safetensors import read_safetensors, save_safetensors
from models.layers.base import blank_weights
from models.load import load
from models.network import Network
from models.plan import read_plan
from models.shipped import shipped_model, shipped_models
from models.weights import save_weights
from utils.errors import InputError
from utils.files import is_file
from utils.torch_files import is_torch_file, load_torch_file

TORCH_SUFFIXES = (".pt", ".pth")
SUFFIXES = (".weights", *TORCH_SUFFIXES, ".safetensors")


class LoadedModel(NamedTuple):
    """A network ready for inference, and its class names if the file has them."""

    network: Network
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How to read a network.

    cfg: required for .weights files and for PyTorch files of other programs; overrides the cfg inside other files.
    own_cfg: prefer the cfg inside the file, if there is one.
    device: where to put the network.
    width, height: input size in pixels, if other than the cfg's.
    ema: load the averaged weights of a training run instead of its last ones.
    trust_pickle: read PyTorch files with Python's pickle, which runs any code in them.
    partial: load as much of a .weights file as fits.
    """

    cfg: str | Path | None = None
    device: str | torch.device = "cpu"
    width: int | None = None
    height: int | None = None
    ema: bool = False
    trust_pickle: bool = False
    partial: bool = False
    own_cfg: bool = False


def load_model(path: str | Path | None, reading: LoadOptions | None = None) -> LoadedModel:
    """Load a network from a .weights, .pt or .safetensors file; without a file, its weights are random.

    path: a file, or the name of a shipped model, whose own cfg is used unless there is one in `reading`.
    Raises InputError for a file that cannot be used.
    """
    reading = reading or LoadOptions()
    if path is None:
        return LoadedModel(_darknet(None, reading), ())
    shipped = shipped_model(path)
    if shipped and reading.cfg is None:
        return LoadedModel(_darknet(shipped.weights, replace(reading, cfg=shipped.cfg)), shipped.class_names())
    path = shipped.weights if shipped else path
    if not Path(path).suffix and not is_file(path):
        raise InputError(f"{path}: no such model; the shipped models are {', '.join(shipped_models())}")
    if Path(path).suffix == ".safetensors":
        return _described(read_safetensors(path), path, reading)
    if reading.trust_pickle:
        return _from_torch(unpickle(path), path, reading)
    if is_torch_file(path):
        return _from_torch(load_torch_file(path), path, reading)
    if Path(path).suffix in TORCH_SUFFIXES:
        raise InputError(
            f"{path}: is not a PyTorch archive; if it is an old pickle from a source you trust, use --trust-pickle"
        )
    return LoadedModel(_darknet(path, reading), ())


def save_model(network: Network, path: str | Path, names: tuple[str, ...] = ()) -> None:
    """Write a network in the format of the extension. Raises InputError if it is unknown, RunError if writing fails."""
    suffix = Path(path).suffix
    if suffix in TORCH_SUFFIXES:
        save_checkpoint_model(network, path, names)
    elif suffix == ".safetensors":
        save_safetensors(network, path, names)
    elif suffix == ".weights":
        save_weights(network, path)
    else:
        raise InputError(f"{path}: expected one of {', '.join(SUFFIXES)} as extension")


def _darknet(path: str | Path | None, reading: LoadOptions) -> Network:
    if reading.cfg is None:
        raise InputError(f"{path}: contains no cfg, expected --cfg")
    if reading.ema:
        raise InputError(f"{path}: has no averaged weights, expected the checkpoint of a training run for --ema")
    size = {"width": reading.width, "height": reading.height}
    return load(reading.cfg, path, reading.device, **size, partial=reading.partial)


def _from_torch(content: Any, path: str | Path, reading: LoadOptions) -> LoadedModel:
    ours = from_checkpoint(content, str(path), ema=reading.ema)
    if ours is not None:
        return _described(ours, path, reading)
    if reading.cfg is None:
        raise InputError(
            f"{path}: is not a checkpoint of this program; to convert its tensors, pass its cfg with --cfg"
        )
    with blank_weights():
        network = Network(read_plan(reading.cfg, width=reading.width, height=reading.height))
    set_foreign(network, content, path)
    return LoadedModel(network.to(reading.device).eval(), ())


def _described(found: Described, path: str | Path, reading: LoadOptions) -> LoadedModel:
    description, size = found.description, {"width": reading.width, "height": reading.height}
    cfg = None if reading.own_cfg else reading.cfg
    plan = description.plan(str(path), **size) if cfg is None else read_plan(cfg, **size)
    with blank_weights():
        network = Network(plan)
    set_state(network, found.state, str(path))
    network.seen, network.version = description.seen, description.version
    return LoadedModel(network.to(reading.device).eval(), description.names)

"""Networks in .pt files: those that convert.py writes, and the checkpoints of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from models.formats.description import FORMAT, Described, Description
from models.formats.state import state_of
from models.network import Network
from utils.errors import InputError
from utils.torch_files import save_torch_file

RUN_FORMAT = "cspyolo checkpoint 1"  # of files that training/checkpoint.py writes


def save_checkpoint_model(network: Network, path: str | Path, names: tuple[str, ...]) -> None:
    """Write tensors, cfg and names. Raises RunError (disk full, ...)."""
    save_torch_file({"format": FORMAT, **Description.of(network, names).plain(), "model": state_of(network)}, path)


def from_checkpoint(content: Any, place: str, *, ema: bool = False) -> Described | None:
    """Description and tensors in the content of a PyTorch file; None if it is no checkpoint of this program.

    ema: with the averages of a training run in the place of its weights. Raises InputError when something is missing.
    """
    if not isinstance(content, dict) or content.get("format") not in (FORMAT, RUN_FORMAT):
        return None
    if not isinstance(content.get("model"), dict):
        raise InputError(f"{place}: the checkpoint has no tensors")
    description = Description.from_plain({"version": (0, 2, 5), **content}, place)
    return Described(description, _chosen(content, place, ema))


def _chosen(content: dict[str, Any], place: str, ema: bool) -> dict[str, Tensor]:
    state = dict(content["model"])
    if ema:
        averages = content.get("ema")
        if not averages:
            raise InputError(f"{place}: holds no average of the weights, expected a training run with ema_alpha")
        state.update(averages)
    return state

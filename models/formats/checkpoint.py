"""Files with cfg, class names and tensors together: the description that all formats share, and .pt files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor

from models.network import Network
from models.plan import Plan, make_plan
from models.weights import MAX_VERSION
from utils import cfg as cfg_text
from utils.documents import parse_json
from utils.errors import InputError
from utils.torch_files import is_plain_floats, save_torch_file

FORMAT = "cspyolo model 1"
RUN_FORMAT = "cspyolo checkpoint 1"  # format of the files that training/checkpoint.py writes


@dataclass(frozen=True, kw_only=True)
class Description:
    """Everything about a network except its tensors.

    cfg: text of the cfg.
    names: class names; empty if unknown.
    seen, version: as in the header of a .weights file.
    """

    cfg: str
    names: tuple[str, ...] = ()
    seen: int = 0
    version: tuple[int, int, int] = (0, 2, 5)

    @classmethod
    def of(cls, network: Network, names: tuple[str, ...] = ()) -> Description:
        return cls(cfg=network.plan.cfg.text, names=names, seen=network.seen, version=network.version)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any], place: str) -> Description:
        """Build from the values in a file. Raises InputError if one is missing or has the wrong type."""
        cfg, names, seen, version = (values.get(key) for key in ("cfg", "names", "seen", "version"))
        if not isinstance(cfg, str) or not isinstance(seen, int) or not 0 <= seen < 2**64 or not _are(names, str):
            raise InputError(f"{place}: expected the cfg, names, seen and version of its network")
        if not _are(version, int) or len(version) != 3 or not all(0 <= each <= MAX_VERSION for each in version):
            raise InputError(f"{place}: version {version!r:.80}, expected three numbers from 0 to {MAX_VERSION:,}")
        major, minor, revision = version
        return cls(cfg=cfg, names=tuple(names), seen=seen, version=(major, minor, revision))

    @classmethod
    def from_text(cls, text: str, place: str) -> Description:
        """Inverse of `text`. Raises InputError."""
        values = parse_json(text, place, "the description of the network")
        if not isinstance(values, dict):
            raise InputError(f"{place}: the description of the network cannot be read")
        return cls.from_plain(values, place)

    def plain(self) -> dict[str, Any]:
        return {"cfg": self.cfg, "names": list(self.names), "seen": self.seen, "version": list(self.version)}

    def text(self) -> str:
        """One line of ASCII; bytes of the cfg that are not valid UTF-8 are preserved."""
        return json.dumps(self.plain())

    def plan(self, place: str, *, width: int | None = None, height: int | None = None) -> Plan:
        """The plan of the cfg, optionally at another input size. Raises InputError."""
        return make_plan(cfg_text.parse(self.cfg, f"{place} (its cfg)"), width=width, height=height)


def _are(values: Any, kind: type) -> TypeGuard[Sequence[Any]]:
    return isinstance(values, list | tuple) and all(isinstance(each, kind) for each in values)


class Described(NamedTuple):
    """The content of a model file: description, and tensors by name."""

    description: Description
    state: dict[str, Tensor]


def state_of(network: Network) -> dict[str, Tensor]:
    """All tensors by PyTorch name, on the CPU in float32; shared tensors (share_index) appear once, under their owner."""
    assert not network.is_folded, "a folded network has lost its batch normalisation"
    held: set[int] = set()
    state = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if id(tensor) not in held:
            held.add(id(tensor))
            state[name] = tensor.detach().to("cpu", torch.float32).contiguous()
    return state


def set_state(network: Network, state: Mapping[str, Tensor], place: str) -> None:
    """Copy tensors by name. Raises InputError, before changing anything, unless they are exactly those of the network."""
    own: dict[str, Tensor] = network.state_dict(keep_vars=True)
    needed = set(state_of(network))
    wrong = sorted(needed - set(state)) or sorted(set(state) - set(own))
    if wrong:
        kind = "is missing" if wrong[0] in needed else "is not a tensor of the network"
        raise InputError(f"{place}: {wrong[0]} {kind} ({len(wrong)} such tensors); the file belongs to another cfg")
    for name, tensor in state.items():
        _check_tensor(tensor, own[name], f"{place}: {name}")
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)


def _check_tensor(tensor: Tensor, own: Tensor, place: str) -> None:
    if not is_plain_floats(tensor):
        raise InputError(f"{place}: expected a tensor of floats")
    if tensor.shape != own.shape:
        raise InputError(
            f"{place}: has shape {tuple(tensor.shape)}, expected {tuple(own.shape)}; the file belongs to another cfg"
        )
    if not torch.isfinite(tensor).all():
        raise InputError(f"{place}: has non-finite values; the file is damaged or its training diverged")


def save_checkpoint_model(network: Network, path: str | Path, names: tuple[str, ...]) -> None:
    """Write tensors, cfg and class names to a .pt file. Raises RunError if writing fails."""
    save_torch_file({"format": FORMAT, **Description.of(network, names).plain(), "model": state_of(network)}, path)


def from_checkpoint(content: Any, place: str, *, ema: bool = False) -> Described | None:
    """Extract description and tensors from the content of a PyTorch file; None if cspyolo did not write it.

    ema: take the averaged weights of a training run instead of its last ones.
    Raises InputError if something is missing.
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
        if not averages or not isinstance(averages, dict):
            raise InputError(f"{place}: has no averaged weights, expected a training run with ema_alpha")
        state.update(averages)
    return state

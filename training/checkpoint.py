"""Checkpoints (last.pt, best.pt): everything a run needs to resume, as tensors and plain Python values.

They are read with torch.load(weights_only=True), so a file cannot run code, and written atomically.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch

from models.formats.checkpoint import RUN_FORMAT
from training.loop import Update
from utils import cfg as cfg_text
from utils.errors import CfgError, InputError
from utils.files import remove_unfinished
from utils.torch_files import is_torch_file, load_torch_file, save_torch_file


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a run after `iteration` weight updates.

    cfg: text of the fitted cfg.
    names: class names.
    model, optimizer, ema, scaler: their state_dicts; ema and scaler are empty if off.
    trained: state_dict of the network in training if `model` is the average of its weights, otherwise empty.
    random: states of the random generators.
    loader: seed of the data loader and position in the data.
    history: rows of results.csv, average loss, and the state of the evaluations.
    settings: the flags of train.py.
    """

    cfg: str
    names: list[str]
    model: dict[str, Any]
    optimizer: dict[str, Any]
    iteration: int
    seen: int
    best: float = -1.0
    ema: dict[str, Any] = field(default_factory=dict)
    trained: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    random: dict[str, Any] = field(default_factory=dict)
    loader: dict[str, Any] = field(default_factory=dict)
    history: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write a checkpoint atomically. Raises RunError if writing fails."""
    content = {item.name: getattr(checkpoint, item.name) for item in dataclasses.fields(checkpoint)}
    save_torch_file(content | {"format": RUN_FORMAT}, path)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint onto the CPU. Raises InputError if it is no checkpoint, is truncated, or holds more than data."""
    if not is_torch_file(path):
        raise InputError(f"{path}: is not a checkpoint, expected a last.pt or best.pt")
    content = load_torch_file(path)
    if not isinstance(content, dict) or content.pop("format", None) != RUN_FORMAT:
        raise InputError(f"{path}: is a PyTorch file, but not the checkpoint of a training run")
    content.setdefault("trained", {})  # missing in older checkpoints
    wrong = {item.name for item in dataclasses.fields(Checkpoint)} ^ set(content)
    if wrong:
        raise InputError(f"{path}: the checkpoint is from a different version: {', '.join(sorted(map(str, wrong)))}")
    require_types(Checkpoint, content, str(path))
    if content["iteration"] < 0 or not 0 <= content["seen"] < 2**64:
        raise InputError(
            f"{path}: the checkpoint is of iteration {content['iteration']}, after {content['seen']} images"
        )
    return Checkpoint(**content)


def require_types(record: type, values: Mapping[str, Any], place: str) -> None:
    """Raise InputError for a value that does not match its field in the dataclass `record`, or that has no field."""
    hints = get_type_hints(record)
    for name, value in values.items():
        if name not in hints:
            raise InputError(f"{place}: the checkpoint has the unknown value {name!r:.80}")
        if not _fits(value, hints[name]):
            raise InputError(f"{place}: the checkpoint's {name} is {value!r:.80}, expected {hints[name]}")


def _fits(value: Any, hint: Any) -> bool:
    kinds, base = get_args(hint), get_origin(hint) or hint
    if base is Any:
        return True
    if base in (Union, UnionType):
        return any(_fits(value, kind) for kind in kinds)
    if base is tuple:
        return isinstance(value, list | tuple) and all(_fits(each, kinds[0]) for each in value)
    if base is list:
        return isinstance(value, list) and all(_fits(each, kinds[0]) for each in value)
    if base is dict:
        return isinstance(value, dict) and all(
            _fits(key, kinds[0]) and _fits(each, kinds[1]) for key, each in value.items()
        )
    if base is float:
        return type(value) in (int, float)
    return type(value) is base  # not isinstance: a bool would pass for an int


@contextmanager
def fitting(place: str, what: str) -> Iterator[None]:
    """Turn errors raised inside this context, by loading state that does not belong to this run, into an InputError."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        reason = " ".join(str(error).split()[:40])
        raise InputError(f"{place}: the checkpoint's {what} does not fit: {reason}") from None


def require_alike(saved: Any, own: Any, what: str) -> None:
    """Raise ValueError if the structure of `saved` (keys, lengths, shapes, types of values) differs from that of `own`."""
    if isinstance(own, dict):
        missing = set(own) - set(saved if isinstance(saved, dict) else ())
        if missing or not isinstance(saved, dict):
            raise ValueError(f"{what} lacks {', '.join(map(str, missing))}")
        for key, value in own.items():
            require_alike(saved[key], value, f"{what} {key}")
    elif isinstance(own, list | tuple):
        if not isinstance(saved, list | tuple) or len(saved) != len(own):
            raise ValueError(f"{what}: expected {len(own)} values")
        for number, (value, expected) in enumerate(zip(saved, own, strict=True)):
            require_alike(value, expected, f"{what} {number}")
    elif isinstance(own, torch.Tensor):
        if not isinstance(saved, torch.Tensor) or saved.shape != own.shape or saved.dtype != own.dtype:
            raise ValueError(f"{what}: expected a tensor {tuple(own.shape)} of {own.dtype}")
    elif isinstance(saved, bool) != isinstance(own, bool) or not isinstance(
        saved, int | float if _is_number(own) else type(own)
    ):
        raise ValueError(f"{what} is {saved!r:.80}, expected a {type(own).__name__}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def require_cfg(checkpoint: Checkpoint, path: str | Path, cfg: cfg_text.Cfg) -> None:
    """Raise InputError, naming the first difference, if `cfg` differs from the checkpoint's in more than comments."""
    theirs = cfg_text.parse(checkpoint.cfg, f"{path} (its cfg)")
    for mine, other in zip(cfg.sections, theirs.sections, strict=False):
        found = {entry.key: entry.value for entry in reversed(mine.entries)}
        expected = {entry.key: entry.value for entry in reversed(other.entries)}
        if mine.name != other.name or found != expected:
            keys = [key for key in found | expected if found.get(key) != expected.get(key)]
            text = f"differs from the cfg of {path} at [{other.name}]" + (f" {keys[0]}" if keys else "")
            raise CfgError(cfg.path, mine.line, text)
    if len(cfg.sections) != len(theirs.sections):
        counts = f"{len(cfg.sections) - 1} layers, that of {path} {len(theirs.sections) - 1}"
        raise CfgError(cfg.path, None, f"differs from the checkpoint's cfg: it has {counts}")


def random_state() -> dict[str, Any]:
    """States of the random generators of Python and PyTorch; augmentation needs none (data/loader.py)."""
    version, values, gauss = random.getstate()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"python": [version, list(values), gauss], "torch": torch.get_rng_state(), "cuda": devices}


def restore_random_state(state: dict[str, Any]) -> None:
    """Inverse of `random_state`; GPU states are ignored if the number of GPUs has changed."""
    require_alike({**state, "cuda": []}, {**random_state(), "cuda": []}, "random state")
    version, values, gauss = state["python"]
    random.setstate((version, tuple(values), gauss))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


@dataclass(frozen=True, kw_only=True)
class Saver:
    """Hook that saves checkpoints and weights at the original's intervals (detector.c train_detector).

    checkpoint: returns the state of the run.
    write_weights: writes a weights file.
    last_every: iterations between writes of `last.pt` and `<stem>_last.weights`.
    keep_every: iterations between writes of `<stem>_<iteration>.weights`; 0: none.
    """

    folder: Path
    stem: str
    checkpoint: Callable[[], Checkpoint]
    write_weights: Callable[[Path], None]
    last_every: int = 100
    keep_every: int = 1000

    def __call__(self, update: Update) -> None:
        if self.keep_every and update.iteration % self.keep_every == 0:
            self.write_weights(self.folder / f"{self.stem}_{update.iteration}.weights")
        if update.iteration % self.last_every == 0:
            self.save("last")

    def remove_unfinished(self) -> None:
        """Remove temporary files that a killed run left in the run folder or its parent."""
        for folder in (self.folder, self.folder.parent):
            remove_unfinished(folder)

    def save(self, which: str) -> None:
        """Write the state as `<which>.pt` and `<stem>_<which>.weights`."""
        save_checkpoint(self.checkpoint(), self.folder / f"{which}.pt")
        self.write_weights(self.folder / f"{self.stem}_{which}.weights")

    def final(self) -> None:
        """Save the state at the end of training."""
        self.save("last")
        self.write_weights(self.folder / f"{self.stem}_final.weights")

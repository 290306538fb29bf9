"""`open_model`: open any model file, ready to run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial as bound
from pathlib import Path

import torch

from data.formats.darknet import class_names
from inference.backends import (
    ExportedModel,
    OnnxRuntimeSession,
    OpenCvSession,
    OpenVinoSession,
    Session,
    TorchScriptSession,
)
from inference.cuda import GraphedNetwork
from inference.detector import Detector
from inference.engine import ENGINES, OPENVINO, EngineNetwork, default_engine
from inference.predictor import Classifier, Model, Runnable
from models.formats.files import LoadOptions, load_model
from models.layers.convolve import has_bfloat16
from models.network import Network
from utils.cli import AddFlag, input_size
from utils.device import select_device
from utils.errors import InputError
from utils.packages import need

logger = logging.getLogger(__name__)

# Engine -> extensions of its files, and what opens them. The first engine with an extension is the default for it.
_ENGINES: dict[str, tuple[tuple[str, ...], Callable[[str | Path, torch.device], Session]]] = {
    "onnxruntime": ((".onnx",), OnnxRuntimeSession),
    "openvino": ((".xml", ".onnx"), OpenVinoSession),
    "opencv": ((".onnx",), OpenCvSession),
    "torchscript": ((".torchscript",), TorchScriptSession),
}
AUTO, TORCH = "auto", "torch"
BACKENDS = (AUTO, TORCH, *_ENGINES)


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """Command line flags that name a model."""

    cfg: str | None
    weights: str | None
    names: str | None
    backend: str
    ema: bool
    trust_pickle: bool
    partial: bool
    img_size: tuple[int, ...]
    device: str
    half: bool

    @classmethod
    def add(cls, add: AddFlag, **helps: str) -> None:
        """Declare the flags with `add`. helps: help texts by field that replace the shared ones."""
        choices = {"backend": {"choices": BACKENDS}}
        for field in fields(ModelFlags):
            own = {"help": helps[field.name]} if field.name in helps else {}
            add("--" + field.name.replace("_", "-"), **own, **choices.get(field.name, {}))

    def open_named(self) -> Model:
        """Open the model and warn if its class names are unknown. Raises InputError."""
        model = self.open()
        if model.names == class_names(None, model.classes, ""):
            last = f", ..., class {model.classes - 1}" if model.classes > 1 else ""
            text = "no class names, expected --names or --data; the classes are called"
            logger.warning("%s: %s class 0%s", self.weights, text, last)
        return model

    def open(self) -> Model:
        """See `open_model`. Raises InputError."""
        return open_model(
            self.weights,
            cfg=self.cfg,
            names=self.names,
            backend=self.backend,
            device=self.device,
            img_size=input_size(self.img_size),
            half=self.half,
            ema=self.ema,
            trust_pickle=self.trust_pickle,
            partial=self.partial,
        )


def open_model(
    path: str | Path | None,
    *,
    cfg: str | Path | None = None,
    names: str | Path | Sequence[str] | None = None,
    backend: str = AUTO,
    device: str | torch.device = "",
    img_size: tuple[int, int] | None = None,
    half: bool = False,
    ema: bool = False,
    trust_pickle: bool = False,
    partial: bool = False,
) -> Model:
    """Open the detector or classifier in a .weights, .pt, .safetensors, .onnx, .xml or .torchscript file.

    path: None: random weights.
    cfg: for .weights files; the other formats contain theirs.
    names: a names file, or the names themselves; default: those in the file, else class 0, class 1, ...
    backend: one of BACKENDS; "auto" goes by the extension for exported models; otherwise it is PyTorch on a GPU, and on a
        CPU the fastest installed engine once the number of images pays for opening it (see `EngineNetwork`).
    device: see `select_device`; "" selects a GPU if there is one.
    img_size: override the input width and height, in pixels.
    half: float16 on a GPU, bfloat16 with OpenVINO on a CPU.
    ema: load the EMA weights of a training checkpoint.
    trust_pickle: read .pt files with pickle, which runs any code inside.
    partial: load the layers of a .weights file that fit the cfg.

    Raises InputError for files, engines, sizes and names that do not go together, and for `half` where it is unsupported.
    """
    device = select_device(device) if isinstance(device, str) else device
    width, height = img_size or (None, None)
    reading = LoadOptions(
        cfg=cfg, device=device, width=width, height=height, ema=ema, trust_pickle=trust_pickle, partial=partial
    )
    network, own_names = open_network(path, reading, backend, half=half)
    model = model_of(network, device, backend=backend, half=half, cache=True)
    if names is None and own_names:
        if len(own_names) != model.classes:
            text = f"has {len(own_names)} names in it for {model.classes} classes; give others with --names"
            raise InputError(f"{path}: {text}")
        model.names = own_names
    elif isinstance(names, (str, Path)):
        model.names = class_names(names, model.classes, cfg or str(path))
    elif names is not None:
        if len(names) != model.classes:
            raise InputError(f"names: found {len(names)}, {cfg or path} has classes={model.classes}")
        model.names = tuple(names)
    return model


def open_network(
    path: str | Path | None, reading: LoadOptions, backend: str = AUTO, *, half: bool = False
) -> tuple[Network | ExportedModel, tuple[str, ...]]:
    """Return the network in a file, not folded, and the class names in the file. Raises InputError like `open_model`.

    half: for exported models only; a Network is always in float32.
    """
    if path is None or not any(Path(path).suffix in suffixes for suffixes, _ in _ENGINES.values()):
        if backend not in (AUTO, TORCH, *ENGINES):
            raise InputError(f"--backend {backend}: runs only exported models, not {path}; see export.py")
        network, names = load_model(path, reading)
        return network, names
    possible = [name for name, (suffixes, _) in _ENGINES.items() if Path(path).suffix in suffixes]
    engine = possible[0] if backend == AUTO else backend
    if engine not in possible:
        raise InputError(f"{path}: --backend {engine} cannot run it, expected {' or '.join(possible)}")
    for flag, given in (("--ema", reading.ema), ("--partial", reading.partial)):
        if given:
            logger.warning("%s: %s has no effect on an exported model", path, flag)
    device, opener = torch.device(reading.device), _ENGINES[engine][1]
    if half:
        if engine != OPENVINO or device.type != "cpu":
            raise InputError(f"{path}: --half runs exported models only with --backend openvino on a CPU")
        _require_bfloat16()
        opener = bound(OpenVinoSession, half=True)
    session = opener(path, device)
    own = session.metadata
    model = ExportedModel(session, str(path), (reading.width or own.size_wh[0], reading.height or own.size_wh[1]))
    return model, own.description.names


def model_of(
    network: Network | ExportedModel,
    device: torch.device,
    *,
    backend: str = AUTO,
    half: bool = False,
    cache: bool = False,
) -> Model:
    """Wrap a network in a Detector, or in a Classifier if no head has boxes. A Network is folded in place.

    backend, half: for a Network, see `open_model`.
    cache: keep the model compiled by an engine on disk.
    Raises InputError for engines that are not installed or cannot run it.
    """
    runnable: Runnable = network
    if isinstance(network, ExportedModel):
        device, half = torch.device("cpu"), False  # of inputs and outputs; the engine has its own device and precision
    else:
        network.fold()
        engine = _engine(backend, device, half)
        if engine is not None:
            required = half or backend != AUTO
            runnable = EngineNetwork(network.cpu(), engine, device, required=required, half=half, cache=cache)
            device, half = torch.device("cpu"), False
        elif half:
            network.half()
        if device.type == "cuda" and backend == AUTO:
            if half:
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            runnable = GraphedNetwork(network)
    plan = runnable.plan
    if not plan.box_heads and any(step.section.is_head for step in plan.steps):
        return Classifier(runnable, device, half=half)
    return Detector(runnable, device, half=half)


def _engine(backend: str, device: torch.device, half: bool) -> str | None:
    """Return the engine for a network, None for PyTorch. Raises InputError if `half` is not supported."""
    if half and device.type == "cpu":
        if backend not in (AUTO, OPENVINO):
            raise InputError(f"--half: on a CPU it needs --backend {OPENVINO}, found {backend}")
        _require_bfloat16()
        return OPENVINO
    if backend != AUTO:
        return None if backend == TORCH else backend
    return default_engine() if device.type == "cpu" else None


def _require_bfloat16() -> None:
    """Raise InputError unless OpenVINO is installed and the processor multiplies bfloat16."""
    if not has_bfloat16():
        raise InputError("--half: this CPU has no bfloat16 instructions, and there is no GPU")
    need("openvino", "openvino")

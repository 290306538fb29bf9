"""One door to everything that can run: Darknet weights, checkpoints, and exported models in an engine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from inference.backends import OnnxRuntimeSession, OpenCvSession, OpenVinoSession, Session, TorchScriptSession
from inference.classifier import Classifier
from inference.detector import Runnable
from inference.exported import ExportedModel, ExportedPredictor
from inference.predictor import Predictor
from models.formats.files import LoadOptions, load_model
from models.load import load
from models.network import Network
from utils.device import select_device
from utils.errors import InputError

logger = logging.getLogger(__name__)

# Engine -> extensions of its files and what opens them. The first engine with an extension is its default.
_ENGINES: dict[str, tuple[tuple[str, ...], Callable[[str | Path, torch.device], Session]]] = {
    "onnxruntime": ((".onnx",), OnnxRuntimeSession),
    "openvino": ((".xml", ".onnx"), OpenVinoSession),
    "opencv": ((".onnx",), OpenCvSession),
    "torchscript": ((".torchscript",), TorchScriptSession),
}
TORCH = "torch"
BACKENDS = (TORCH, *_ENGINES)


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """How a model is run.

    backend: one of BACKENDS; None: by the extension of the file. reading: as load_model takes it; its device is the run's.
    half: 16-bit floats, on a GPU. mirrored: look at the mirror image of each image too. single: call every class 0.
    """

    backend: str | None = None
    reading: LoadOptions = field(default_factory=LoadOptions)
    half: bool = False
    mirrored: bool = False
    single: bool = False


class Opened(NamedTuple):
    """What detects, and the class names as far as the file has them."""

    predictor: Predictor
    names: tuple[str, ...]


class OpenedModel(NamedTuple):
    """What detects or classifies, and the class names as far as the file has them."""

    model: Predictor | Classifier
    names: tuple[str, ...]


def is_exported(path: str | Path | None) -> bool:
    """Whether a file is one that an engine runs, by its extension."""
    return path is not None and any(Path(path).suffix in suffixes for suffixes, _ in _ENGINES.values())


def open_predictor(weights: str | Path | None, run: RuntimeOptions) -> Opened:
    """A model ready for detection. Raises InputError for files, engines and sizes that do not go together."""
    network, names = open_network(weights, run)
    return Opened(_predictor(network, run), names)


def open_model(weights: str | Path | None, run: RuntimeOptions) -> OpenedModel:
    """A model ready for detection or, if its cfg has no boxes, for naming images. Raises InputError as `open_predictor`."""
    network, names = open_network(weights, run)
    plan = network.plan
    if plan.box_heads or not any(step.section.is_head for step in plan.steps):
        return OpenedModel(_predictor(network, run), names)
    device = torch.device(run.reading.device)
    return OpenedModel(Classifier(network, device, half=run.half, mirrored=run.mirrored), names)


def open_network(weights: str | Path | None, run: RuntimeOptions) -> tuple[Runnable, tuple[str, ...]]:
    """What a file holds, ready to run, and its class names. Raises InputError as `open_predictor`."""
    if weights is None or not is_exported(weights):
        return _with_torch(weights, run)
    model = open_exported(weights, run)
    return model, model.metadata.description.names


def _predictor(network: Runnable, run: RuntimeOptions) -> Predictor:
    if isinstance(network, ExportedModel):
        return ExportedPredictor(network, mirrored=run.mirrored, single=run.single)
    device = torch.device(run.reading.device)
    return Predictor(network, device, half=run.half, mirrored=run.mirrored, single=run.single)


def open_exported(weights: str | Path, run: RuntimeOptions) -> ExportedModel:
    """An exported model in its engine. Raises InputError."""
    engine = run.backend or next(name for name, (known, _) in _ENGINES.items() if Path(weights).suffix in known)
    if engine not in _ENGINES or Path(weights).suffix not in _ENGINES[engine][0]:
        raise InputError(f"{weights}: --backend {engine} cannot run it, expected {_possible(weights)}")
    if run.half:
        raise InputError(f"{weights}: --half is settled when a model is exported")
    reading = run.reading
    for name, given in (("--ema", reading.ema), ("--partial", reading.partial)):
        if given:
            logger.warning("%s: %s has no effect on an exported model", weights, name)
    own = _ENGINES[engine][1](weights, torch.device(reading.device))
    width, height = reading.width or own.metadata.size_wh[0], reading.height or own.metadata.size_wh[1]
    return ExportedModel(own, str(weights), (width, height))


def _possible(weights: str | Path) -> str:
    return " or ".join(name for name, (known, _) in _ENGINES.items() if Path(weights).suffix in known)


def _with_torch(weights: str | Path | None, run: RuntimeOptions) -> tuple[Network, tuple[str, ...]]:
    if run.backend not in (None, TORCH):
        raise InputError(f"--backend {run.backend}: runs exported models, not {weights}; see export.py")
    network, names = load_model(weights, run.reading)
    device = torch.device(run.reading.device)
    network.fold(pack=device.type == "cpu")
    if run.half:
        network.half()
    return network, names


def load_predictor(
    cfg: str | Path,
    weights: str | Path,
    device: str | torch.device = "cpu",
    *,
    width: int | None = None,
    height: int | None = None,
    partial: bool = False,
    half: bool = False,
    mirrored: bool = False,
) -> Predictor:
    """A network with boxes, folded for inference on its device: `load_predictor(...).predict(images)`.

    half: 16-bit floats, on a GPU only. mirrored: look at the mirror image of each image too. For the rest see `load`.
    Raises InputError as `load` does, and for a cfg without boxes.
    """
    device = select_device(device) if isinstance(device, str) else device
    if half and device.type == "cpu":
        raise InputError("half: 16-bit floats are for a GPU, the device is the cpu")
    network = load(cfg, weights, device, width=width, height=height, partial=partial).fold(pack=device.type == "cpu")
    return Predictor(network.half() if half else network, device, half=half, mirrored=mirrored)

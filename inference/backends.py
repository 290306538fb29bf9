"""ONNX models in ONNX Runtime."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from models.export.metadata import Metadata
from models.export.onnx import read_onnx_metadata
from models.export.openvino import read_pairs
from models.export.torchscript import read_torchscript
from models.onnx_graph import INPUT
from utils.errors import InputError
from utils.packages import need

logger = logging.getLogger(__name__)

Arrays = list[NDArray[np.float32]]


class Session(Protocol):
    """A model loaded by an engine. metadata: what its file says of it."""

    metadata: Metadata

    def run(self, images: NDArray[np.float32]) -> Arrays:
        """Outputs of images (n, channels, height, width); n is the model's batch, if that is fixed."""
        ...


def as_floats(values: Any) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, np.float32)


_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntimeSession:
    """Raises InputError for a file that is no ONNX model of this program, and when the package is missing."""

    def __init__(self, path: str | Path, device: torch.device) -> None:
        self.metadata = Metadata.from_pairs(read_onnx_metadata(path), str(path))
        self._session = open_session(Path(path).read_bytes(), str(path), device)

    def run(self, images: NDArray[np.float32]) -> Arrays:
        return [as_floats(each) for each in self._session.run(None, {INPUT: images})]


def open_session(model: bytes, place: str, device: torch.device) -> Any:
    """A session of ONNX Runtime with as many threads as PyTorch uses. Raises InputError for a model that it refuses."""
    library = need("onnxruntime", "onnxruntime")
    options = library.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # its remarks on float16 on a CPU and the like are not the user's business
    wanted = _PROVIDERS.get(device.type, _PROVIDERS["cpu"])
    if wanted not in library.get_available_providers():
        logger.warning("%s: this onnxruntime has no %s, the CPU is used", place, wanted)
        wanted = _PROVIDERS["cpu"]
    try:
        return library.InferenceSession(model, options, providers=[wanted])
    except (
        library.capi.onnxruntime_pybind11_state.Fail,
        library.capi.onnxruntime_pybind11_state.InvalidGraph,
        library.capi.onnxruntime_pybind11_state.InvalidProtobuf,
        library.capi.onnxruntime_pybind11_state.NotImplemented,
    ) as error:
        raise InputError(f"{place}: ONNX Runtime refuses it: {str(error).splitlines()[0]}") from None


class OpenVinoSession:
    """Raises InputError for a file that is no model of this program, and when the package is missing."""

    def __init__(self, path: str | Path, device: torch.device) -> None:
        library = need("openvino", "openvino")
        core = library.Core()
        if not Path(path).is_file():
            raise InputError(f"{path}: no such model")
        if Path(path).suffix == ".xml" and not Path(path).with_suffix(".bin").is_file():
            raise InputError(f"{path}: {Path(path).with_suffix('.bin').name} with its weights is missing beside it")
        try:
            model = core.read_model(str(path))
        except RuntimeError as error:
            raise InputError(f"{path}: OpenVINO refuses it: {str(error).strip().splitlines()[-1]}") from None
        is_onnx = Path(path).suffix == ".onnx"
        pairs = read_onnx_metadata(path) if is_onnx else read_pairs(model)
        self.metadata = Metadata.from_pairs(pairs, str(path))
        self._compiled = core.compile_model(model, "CPU" if device.type == "cpu" else "GPU", _settings())

    def run(self, images: NDArray[np.float32]) -> Arrays:
        found = self._compiled(images)
        return [as_floats(found[number]) for number in range(len(self._compiled.outputs))]


def _settings() -> dict[str, Any]:
    """Full precision (some processors would compute in bfloat16), and as many threads as PyTorch uses."""
    return {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }


class OpenCvSession:
    """Raises InputError for a file that is no ONNX model of this program, or that this OpenCV cannot read."""

    def __init__(self, path: str | Path, device: torch.device) -> None:
        self.metadata = Metadata.from_pairs(read_onnx_metadata(path), str(path))
        self._place = str(path)
        try:
            self._net = cv2.dnn.readNetFromONNX(str(Path(path)))
        except cv2.error as error:
            raise InputError(f"{path}: OpenCV {cv2.__version__} refuses it: {error.err}") from None
        self.names = list(self._net.getUnconnectedOutLayersNames())

    def run(self, images: NDArray[np.float32]) -> Arrays:
        self._net.setInput(images, INPUT)
        try:
            return [as_floats(each) for each in self._net.forward(self.names)]
        except cv2.error as error:
            raise InputError(f"{self._place}: OpenCV {cv2.__version__} cannot run it: {error.err}") from None


class TorchScriptSession:
    """Raises InputError for a file that is no TorchScript of this program."""

    def __init__(self, path: str | Path, device: torch.device) -> None:
        self._model, pairs = read_torchscript(path, device)
        self.metadata = Metadata.from_pairs(pairs, str(path))
        self._device = device

    def run(self, images: NDArray[np.float32]) -> Arrays:
        with torch.inference_mode():
            return [each.cpu().numpy() for each in self._model(torch.from_numpy(images).to(self._device))]

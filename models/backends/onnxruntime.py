"""ONNX models in ONNX Runtime."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.backends.session import Arrays, as_floats
from models.export.graph import INPUT
from models.export.metadata import Metadata
from models.export.onnx_metadata import read_onnx_metadata
from utils.errors import InputError
from utils.packages import need

logger = logging.getLogger(__name__)

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

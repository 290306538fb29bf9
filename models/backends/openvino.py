"""OpenVINO's models (.xml with .bin beside it), and ONNX models, in OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.backends.session import Arrays, as_floats
from models.export.metadata import Metadata
from models.export.onnx_metadata import read_onnx_metadata
from models.export.openvino_file import read_pairs
from utils.errors import InputError
from utils.packages import need


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

"""OpenVINO models (.xml and .bin), converted from the ONNX model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from models.export.build import ExportOptions
from models.export.metadata import Metadata
from models.export.onnx import onnx_bytes
from models.network import Network
from utils.errors import RunError
from utils.files import staged
from utils.packages import need

_KEY = "darknet"  # key of the metadata in the model's runtime information


def save_openvino(network: Network, path: str | Path, options: ExportOptions, names: tuple[str, ...] = ()) -> None:
    """Write `path` (.xml) and the .bin file beside it.

    With options.half, weights are stored in float16; OpenVINO itself chooses the precision to compute in.
    Raises InputError for anything that OpenVINO cannot express, RunError if writing fails.
    """
    library = need("openvino", "openvino")
    int8 = options.int8 and replace(options.int8, engine="openvino")
    data = onnx_bytes(network, replace(options, half=False, int8=int8), names)
    with staged(path) as target:
        source = target.with_name("source.onnx")
        try:
            source.write_bytes(data)
            model = library.convert_model(str(source))
            for key, value in Metadata.of(network, options, names).pairs().items():
                model.set_rt_info(value, [_KEY, key])
            library.save_model(model, str(target), compress_to_fp16=options.half)
            source.unlink()
        except RuntimeError as error:
            raise RunError(f"{path}: OpenVINO cannot write it: {str(error).splitlines()[-1]}") from error


def read_pairs(model: Any) -> dict[str, str]:
    """The metadata of a model read by OpenVINO."""
    if not model.has_rt_info([_KEY]):
        return {}
    return {key: str(value) for key, value in model.get_rt_info([_KEY]).value.items()}

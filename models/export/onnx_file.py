"""ONNX models: written from a graph, checked, and their metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from models.export.build import Built, ExportOptions, build_graph
from models.export.graph import INPUT
from models.export.metadata import Metadata
from models.network import Network
from utils.errors import InputError
from utils.files import atomic_write
from utils.packages import need

MAX_BYTES = 2**31 - 1  # of a protobuf message
_LARGE = 64  # values; smaller constants may be shapes and places, which the inference of shapes looks at

Constants = dict[str, NDArray[Any]]


def onnx_bytes(network: Network, options: ExportOptions, names: tuple[str, ...] = ()) -> bytes:
    """An ONNX model of a folded network. Raises InputError for what ONNX cannot express."""
    assert network.is_folded, "batch normalisation is folded before a network is exported"
    with torch.no_grad():
        built = build_graph(network, options)
    if sum(value.nbytes for value in built.graph.constants.values()) > MAX_BYTES:
        raise InputError(f"{network.plan.cfg.path}: its weights exceed 2 GiB, more than an ONNX file holds")
    model = _model(network, built, options)
    for key, value in Metadata.of(network, options, names).pairs().items():
        model.metadata_props.add(key=key, value=value)
    data: bytes = model.SerializeToString()
    return data


def save_onnx(network: Network, path: str | Path, options: ExportOptions, names: tuple[str, ...] = ()) -> None:
    """Write an ONNX model. Raises InputError for what ONNX cannot express, RunError (disk full, ...)."""
    data = onnx_bytes(network, options, names)
    with atomic_write(path) as stream:
        stream.write(data)


def _model(network: Network, built: Built, options: ExportOptions) -> Any:
    onnx = need("onnx", "onnx")
    shape = network.plan.input
    batch: int | str = "batch" if options.batch is None else options.batch
    size: list[Any] = ["height", "width"] if options.dynamic_size else [shape.height, shape.width]
    floats = onnx.TensorProto.FLOAT
    make_value = onnx.helper.make_tensor_value_info
    large, small = _by_size(built.graph.constants)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(n.op, n.inputs, n.outputs, name=n.name, **n.attributes) for n in built.graph.nodes],
        Path(network.plan.cfg.path).stem,
        [make_value(INPUT, floats, [batch, shape.channels, *size])],
        [make_value(name, floats, None) for name in built.outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in small.items()],
    )
    opset = onnx.helper.make_opsetid("", options.opset)
    version = onnx.helper.find_min_ir_version_for([opset])
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=version, producer_name="cspyolo")
    return _with_weights(_checked(model, large), large)


def _by_size(constants: Constants) -> tuple[Constants, Constants]:
    large = {name: value for name, value in constants.items() if value.size > _LARGE}
    return large, {name: value for name, value in constants.items() if name not in large}


def _checked(model: Any, large: Constants) -> Any:
    """The model with all shapes in it. Weights stand in as inputs: the checks copy a model several times."""
    onnx = need("onnx", "onnx")
    for name, value in large.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, value.shape))
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(model)
    return model


def _with_weights(model: Any, large: Constants) -> Any:
    onnx = need("onnx", "onnx")
    del model.graph.input[1:]
    for name, value in large.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return model

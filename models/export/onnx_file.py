"""ONNX models: written from a graph, checked, and their metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from models.export.build import Built, ExportOptions, build_graph
from models.export.graph import INPUT
from models.export.metadata import Metadata
from models.network import Network
from utils.errors import InputError
from utils.files import atomic_write
from utils.packages import need

MAX_BYTES = 2**31 - 1  # of a protobuf message


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
    onnx = need("onnx", "onnx")
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
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
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(n.op, n.inputs, n.outputs, name=n.name, **n.attributes) for n in built.graph.nodes],
        Path(network.plan.cfg.path).stem,
        [make_value(INPUT, floats, [batch, shape.channels, *size])],
        [make_value(name, floats, None) for name in built.outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in built.graph.constants.items()],
    )
    opset = onnx.helper.make_opsetid("", options.opset)
    version = onnx.helper.find_min_ir_version_for([opset])
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=version, producer_name="cspyolo")

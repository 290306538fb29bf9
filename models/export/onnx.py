"""Writes and checks ONNX models; reads their metadata without the onnx package."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from numpy.typing import NDArray

from models.export.build import Built, ExportOptions, build_graph, observable
from models.export.metadata import Metadata
from models.network import Network
from models.onnx_graph import INPUT
from utils.errors import InputError
from utils.files import atomic_write
from utils.packages import need

_METADATA_PROPS = 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_BYTES = 64 * 2**20


def read_onnx_metadata(path: str | Path) -> dict[str, str]:
    """Read the metadata of an ONNX file. Raises InputError if the file is truncated or not ONNX."""
    try:
        with Path(path).open("rb") as stream:
            pairs = [dict(_fields(content)) for content in _metadata(stream, os.fstat(stream.fileno()).st_size)]
            return {pair[1].decode("utf-8"): pair.get(2, b"").decode("utf-8") for pair in pairs}
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (EOFError, KeyError, ValueError):
        raise InputError(f"{path}: is truncated or not an ONNX model") from None


def _metadata(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while stream.tell() < size:
        number, wire = divmod(_varint(stream), 8)
        if wire == _VARINT:
            _varint(stream)
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(wire) or _length(stream, wire)
        if stream.tell() + length > size:
            raise EOFError
        if number == _METADATA_PROPS and length <= _MOST_BYTES:
            yield stream.read(length)
        else:
            stream.seek(length, os.SEEK_CUR)


def _length(stream: BinaryIO, wire: int) -> int:
    if wire != _BYTES:
        raise ValueError
    return _varint(stream)


def _varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            raise EOFError
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError


def _fields(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (number, content) of each field of a message that has only string fields."""
    stream = BytesIO(content)
    while stream.tell() < len(content):
        number, wire = divmod(_varint(stream), 8)
        length = _length(stream, wire)
        if stream.tell() + length > len(content):
            raise EOFError
        yield number, stream.read(length)


MAX_BYTES = 2**31 - 1  # of a protobuf message
_LARGE = 64  # values; smaller constants may be shapes or indices, which shape inference needs

Constants = dict[str, NDArray[Any]]


def onnx_bytes(network: Network, options: ExportOptions, names: tuple[str, ...] = ()) -> bytes:
    """Serialise a folded network as an ONNX model. Raises InputError for anything that ONNX cannot express."""
    assert network.is_folded, "batch normalisation is folded before a network is exported"
    with torch.no_grad():
        built = build_graph(network, options)
    return _bytes(network, built, options, Metadata.of(network, options, names).pairs())


def observing_bytes(network: Network, options: ExportOptions) -> tuple[bytes, tuple[str, ...]]:
    """An ONNX model that outputs the tensors observed in calibration, and their names.

    Raises InputError if the network has no such tensors.
    """
    with torch.no_grad():
        built = observable(network, options)
    if not built.outputs:
        raise InputError(
            f"{network.plan.cfg.path}: has no convolution before the last one that could be computed in 8 bits"
        )
    return _bytes(network, built, options, {}), built.outputs


def _bytes(network: Network, built: Built, options: ExportOptions, pairs: Mapping[str, str]) -> bytes:
    if sum(value.nbytes for value in built.graph.constants.values()) > MAX_BYTES:
        raise InputError(f"{network.plan.cfg.path}: its weights exceed 2 GiB, the limit of an ONNX file")
    model = _model(network, built, options)
    for key, value in pairs.items():
        model.metadata_props.add(key=key, value=value)
    data: bytes = model.SerializeToString()
    return data


def save_onnx(network: Network, path: str | Path, options: ExportOptions, names: tuple[str, ...] = ()) -> None:
    """Write an ONNX model. Raises InputError for anything that ONNX cannot express, RunError if writing fails."""
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
    """Check the model and infer all shapes. Meanwhile weights are declared as inputs, as the checks copy the model repeatedly."""
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

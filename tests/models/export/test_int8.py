"""8-bit graphs of every feature cfg in both engines, and which tensors are quantised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inference.backends import OnnxRuntime, OnnxRuntimeSession, OpenVinoSession
from models.export.build import build_graph
from models.export.int8 import Grid, Quantizable, Quantization, quantize
from models.export.onnx import observing_bytes, save_onnx
from models.export.openvino import save_openvino
from models.export.verify import expected
from models.network import Network
from models.onnx_graph import INPUT, Graph
from tests.models.export.test_onnx import NAMES, RAW, network_of
from utils.errors import InputError

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

CPU = torch.device("cpu")
# xnor reduces inputs to their signs, which rounding flips near 0: by 0.19 of the spread in ONNX Runtime.
LIMITS = {"xnor_conv": 0.5}


def quantization_of(network: Network, images: NDArray[np.float32]) -> Quantization:
    """Quantisation with the minimum and maximum of each tensor on `images`."""
    try:
        model, names = observing_bytes(network, RAW)
    except InputError:
        return Quantization(ranges={})  # there is nothing to quantise
    found = OnnxRuntime(model, "observed", CPU).run(images)
    return Quantization(ranges={name: (float(x.min()), float(x.max())) for name, x in zip(names, found, strict=True)})


def noise(found: list[NDArray[np.float32]], wanted: list[NDArray[np.float32]]) -> float:
    """Root mean square of the difference, relative to the spread."""
    values = zip(found, wanted, strict=True)
    return max(float(np.sqrt(((a - b) ** 2).mean()) / (b.std() + 1e-6)) for a, b in values)


@pytest.mark.parametrize("name", NAMES)
def test_both_engines_stay_close_to_the_network(name: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    network = network_of(name, tmp_path)
    check, *_ = expected(network, RAW)
    network.fold()
    options = replace(RAW, int8=quantization_of(network, check.images))
    built = build_graph(network, RAW)
    most = LIMITS.get(name, 0.1)
    least = 1e-4 if Quantizable.of(built.graph, built.outputs).convolutions else 0.0
    save_onnx(network, tmp_path / "a.onnx", options)
    assert least <= noise(OnnxRuntimeSession(tmp_path / "a.onnx", CPU).run(check.images), check.outputs) < most
    save_openvino(network, tmp_path / "a.xml", options)
    assert least <= noise(OpenVinoSession(tmp_path / "a.xml", CPU).run(check.images), check.outputs) < most


def test_all_but_the_last_convolutions_have_weights_of_8_bits(tmp_path: Path) -> None:
    network = network_of("yolo_basic", tmp_path).fold()
    shape = network.plan.input
    images = np.random.default_rng(0).random((1, shape.channels, shape.height, shape.width), np.float32)
    built = build_graph(network, replace(RAW, int8=quantization_of(network, images)))
    makers = {node.outputs[0]: node for node in built.graph.nodes}
    convolutions = [node for node in built.graph.nodes if node.op == "Conv"]
    in_float = [node for node in convolutions if node.inputs[1] in built.graph.constants]
    assert len(in_float) == len(network.plan.heads) < len(convolutions)
    for node in convolutions:
        if node not in in_float:
            weights, input_ = makers[node.inputs[1]], makers[node.inputs[0]]
            assert weights.op == input_.op == "DequantizeLinear" and weights.attributes == {"axis": 0}
            assert built.graph.constants[weights.inputs[0]].dtype == np.int8
            assert built.graph.constants[weights.inputs[1]].shape == built.graph.constants[weights.inputs[0]].shape[:1]


def test_tensors_that_are_joined_share_a_scale() -> None:
    graph = Graph(opset=17, batch=1, dynamic_size=False, size_wh=(4, 4))
    weights = np.ones((2, 3, 1, 1), np.float32)
    with graph.scope("", np.float32):
        a, b = (graph.node(op, graph.node("Conv", INPUT, weights)) for op in ("Relu", "Tanh"))
        joined = graph.concat([a, graph.node("MaxPool", b)], 1)
        inner = graph.node("Conv", joined, np.ones((2, 4, 1, 1), np.float32))
        last = graph.node("Conv", inner, np.ones((1, 2, 1, 1), np.float32))
    part = Quantizable.of(graph, (last,))
    assert [node.outputs[0] for node in part.convolutions] == ["Conv_0", "Conv_2", inner]
    assert [set(group) for group in part.groups] == [{INPUT}, {a, b, joined, "MaxPool_4"}]
    assert part.inner == ("Conv_0", "Conv_2", inner)


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-0.5, 5.0), (-3.0, -1.0), (1.0, 2.0), (0.0, 0.0), (-1e-9, 1e9)])
def test_every_grid_contains_0_and_its_bounds(low: float, high: float) -> None:
    grid = Grid.of(low, high)
    assert 0 <= grid.zero <= 255
    ends = grid.scale * -grid.zero, grid.scale * (255 - grid.zero)
    assert ends[0] <= min(low, 0) + grid.scale / 2 and ends[1] >= max(high, 0) - grid.scale / 2
    assert low == high == 0 or grid.scale == pytest.approx((max(high, 0) - min(low, 0)) / 255)


def test_biases_larger_than_32_bits_of_the_scales_are_kept(tmp_path: Path) -> None:
    """A filter of tiny weights with a large bias."""
    graph = Graph(opset=17, batch=1, dynamic_size=False, size_wh=(4, 4))
    with graph.scope("", np.float32):
        first = graph.node("Conv", INPUT, np.full((1, 3, 1, 1), 1e-12, np.float32), np.array([3.0], np.float32))
        last = graph.node("Conv", first, np.ones((1, 1, 1, 1), np.float32))
    quantize(graph, (last,), Quantization(ranges={first: (0.0, 3.0)}))
    makers = {node.outputs[0]: node for node in graph.nodes}
    biases = makers[next(node for node in graph.nodes if node.op == "Conv").inputs[2]]
    whole, scale = (graph.constants[name].astype(np.float64) for name in biases.inputs[:2])
    assert float((whole * scale)[0]) == pytest.approx(3.0, rel=1e-6)


def test_metadata_says_what_was_measured(tmp_path: Path) -> None:
    report = {"data": "my.data", "images": 7, "metric": "mAP@0.5", "float": 0.5, "int8": 0.49}
    network = network_of("yolo_basic", tmp_path).fold()
    (check, *_) = expected(network, RAW)
    options = replace(RAW, int8=replace(quantization_of(network, check.images), report=report))
    save_onnx(network, tmp_path / "a.onnx", options)
    assert OnnxRuntimeSession(tmp_path / "a.onnx", CPU).metadata.int8 == report
    save_onnx(network, tmp_path / "b.onnx", RAW)
    assert OnnxRuntimeSession(tmp_path / "b.onnx", CPU).metadata.int8 == {}

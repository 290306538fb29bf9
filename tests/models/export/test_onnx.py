"""Every feature cfg as ONNX: ONNX Runtime and OpenCV compute the same as the network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from inference.backends import ExportedModel, OnnxRuntimeSession, OpenCvSession
from models.activations import ACTIVATIONS
from models.catalog import SECTIONS
from models.export.build import ExportOptions, build_graph
from models.export.metadata import Metadata
from models.export.onnx import onnx_bytes, read_onnx_metadata, save_onnx
from models.export.verify import TOLERANCE, difference, expected, sorted_rows
from models.formats.files import LoadOptions, load_model
from models.layers.base import Layer, Shape
from models.network import Network
from models.onnx_graph import Graph
from models.plan import read_plan
from tests.paths import REFERENCE
from tests.recipe import weights_file
from utils.errors import InputError

pytest.importorskip("onnx")

NOT_EXPRESSED = {"conv_lstm_bottleneck": "bottleneck", "shortcut_weights_no_norm": "weights_normalization"}
NAMES = sorted(path.stem for path in (REFERENCE / "cfg").glob("*.cfg") if path.stem not in NOT_EXPRESSED)
RAW = ExportOptions(outputs="raw")

# Networks that OpenCV cannot run, and why.
NOT_IN_OPENCV = {
    "scale_channels_wh": "5.0.0 computes a product of (n, c, h, w) and (n, 1, h, w) in a layout of its own, and wrongly",
}


def network_of(name: str, folder: Path) -> Network:
    cfg = REFERENCE / "cfg" / f"{name}.cfg"
    path = folder / "recipe.weights"
    path.write_bytes(weights_file(Network(read_plan(cfg)).tensors(), 7))
    return load_model(path, LoadOptions(cfg=cfg)).network


BOXED = [name for name in NAMES if read_plan(REFERENCE / "cfg" / f"{name}.cfg").box_heads]


def written(name: str, options: ExportOptions, folder: Path) -> tuple[Path, list]:
    network = network_of(name, folder)
    checks = expected(network, options)
    save_onnx(network.fold(), folder / f"{name}.onnx", options)
    return folder / f"{name}.onnx", checks


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("name", NAMES)
def test_onnxruntime(name: str, opset: int, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    options = replace(RAW, opset=opset, batch=None)
    path, checks = written(name, options, tmp_path)
    session = OnnxRuntimeSession(path, torch.device("cpu"))
    for check in checks:
        assert difference(session.run(check.images), check.outputs, "raw") <= TOLERANCE
    assert len(checks) == 2


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_IN_OPENCV])
def test_opencv(name: str, tmp_path: Path) -> None:
    path, checks = written(name, RAW, tmp_path)
    session = OpenCvSession(path, torch.device("cpu"))
    order = [f"output_{step.index}" for step in session.metadata.plan(name).heads]
    found = dict(zip(session.names, session.run(checks[0].images), strict=True))
    shaped = [found[key].reshape(wanted.shape) for key, wanted in zip(order, checks[0].outputs, strict=True)]
    assert difference(shaped, checks[0].outputs, "raw") <= TOLERANCE, cv2.__version__


@pytest.mark.parametrize("outputs", ["boxes", "nms"])
@pytest.mark.parametrize("name", BOXED)
def test_boxes(name: str, outputs: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    options = ExportOptions(outputs=outputs, conf=0.3, max_det=10_000)  # type: ignore[arg-type]
    path, checks = written(name, options, tmp_path)
    found = OnnxRuntimeSession(path, torch.device("cpu")).run(checks[0].images)
    wanted = checks[0].outputs
    if outputs == "nms":
        found, wanted = [sorted_rows(found[0])], [sorted_rows(wanted[0])]
    assert difference(found, wanted, options.outputs) <= TOLERANCE


@pytest.mark.parametrize("name", ["yolo_basic", "gaussian_yolo", "region_softmax", "spp", "reorg3d"])
def test_dynamic_size(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    boxed = name in BOXED
    options = ExportOptions(outputs="boxes" if boxed else "raw", batch=None, dynamic_size=True)
    path, checks = written(name, options, tmp_path)
    assert len({check.images.shape for check in checks}) == 2
    session = OnnxRuntimeSession(path, torch.device("cpu"))
    for check in checks:
        assert difference(session.run(check.images), check.outputs, options.outputs) <= TOLERANCE


@pytest.mark.parametrize("name", ["reorg", "connected_bn", "local_lrn_crop", "detection_v1"])
def test_size_that_cannot_be_dynamic(name: str, tmp_path: Path) -> None:
    network = network_of(name, tmp_path).fold()
    with pytest.raises(InputError, match="cannot be dynamic"):
        build_graph(network, replace(RAW, dynamic_size=True))


@pytest.mark.parametrize("name", ["yolo_basic", "shortcut_multi", "classifier_avg"])
def test_half(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path, checks = written(name, replace(RAW, half=True), tmp_path)
    error = difference(OnnxRuntimeSession(path, torch.device("cpu")).run(checks[0].images), checks[0].outputs, "raw")
    assert 1e-6 < error < 2e-2
    whole = onnx_bytes(network_of(name, tmp_path).fold(), RAW)
    assert path.stat().st_size < len(whole)


@pytest.mark.parametrize(("name", "word"), [("conv_lstm_bottleneck", "bottleneck")])
def test_unsupported_layers_are_named(name: str, word: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=word):
        build_graph(network_of(name, tmp_path).fold(), RAW)


def test_every_type_and_activation_can_be_exported() -> None:
    exported = {layer for layer in _subclasses(Layer) if layer.export is not Layer.export}
    for name in NAMES:
        for layer in Network(read_plan(REFERENCE / "cfg" / f"{name}.cfg")):
            assert type(layer) in exported, type(layer)
    assert len(SECTIONS) >= 40


def _subclasses(kind: type[Layer]) -> set[type[Layer]]:
    return {kind}.union(*map(_subclasses, kind.__subclasses__()))


@pytest.mark.parametrize("opset", [12, 99])
def test_unsupported_opsets(opset: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected 13 to"):
        build_graph(network_of("conv_basic", tmp_path).fold(), replace(RAW, opset=opset))


def test_no_boxes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--output raw"):
        build_graph(network_of("conv_basic", tmp_path).fold(), ExportOptions())


def test_graph_has_no_unused_parts(tmp_path: Path) -> None:
    built = build_graph(network_of("yolo_basic", tmp_path).fold(), RAW)
    read = {name for node in built.graph.nodes for name in node.inputs}
    made = {name for node in built.graph.nodes for name in node.outputs}
    assert made - read == set(built.outputs)
    assert set(built.graph.constants) <= read
    assert "Identity" not in {node.op for node in built.graph.nodes}


def test_metadata(tmp_path: Path) -> None:
    network = network_of("yolo_basic", tmp_path).fold()
    save_onnx(network, tmp_path / "a.onnx", ExportOptions(), ("a", "b ü"))
    pairs = read_onnx_metadata(tmp_path / "a.onnx")
    found = Metadata.from_pairs(pairs, "a.onnx")
    assert found.description.names == ("a", "b ü") and found.description.cfg == network.plan.cfg.text
    assert found.plan("a.onnx").input == Shape(3, found.size_wh[1], found.size_wh[0])
    onnx = pytest.importorskip("onnx")

    theirs = {each.key: each.value for each in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert theirs == pairs


def test_files_that_are_not_our_models(tmp_path: Path) -> None:
    network = network_of("conv_basic", tmp_path).fold()
    data = onnx_bytes(network, RAW)
    cuts = [data[: len(data) * part // 7] for part in range(7)]
    for number, content in enumerate([*cuts, b"\x0a\xff\xff\xff\xff\x7f", b"[net]\nwidth=3\n", bytes(100)]):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"{number}\.onnx"):
            OnnxRuntimeSession(path, torch.device("cpu"))
    with pytest.raises(InputError, match="cannot be read"):
        OnnxRuntimeSession(tmp_path / "absent.onnx", torch.device("cpu"))


def test_fixed_batch_takes_any_number_of_images(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    network = network_of("yolo_basic", tmp_path)
    shape = network.plan.input
    images = torch.rand(5, shape.channels, shape.height, shape.width)
    with torch.inference_mode():
        wanted = [each.numpy() for each in network(images)]
    save_onnx(network.fold(), tmp_path / "a.onnx", replace(RAW, batch=2))
    model = ExportedModel(OnnxRuntimeSession(tmp_path / "a.onnx", torch.device("cpu")), "a.onnx")
    assert difference([each.numpy() for each in model(images)], wanted, "raw") <= TOLERANCE


@pytest.mark.parametrize("word", sorted(ACTIVATIONS))
def test_activations_at_their_breakpoints(word: str) -> None:
    """Functions whose ONNX form is composed of other operations than the PyTorch form."""
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")

    graph = Graph(opset=17, batch=None, dynamic_size=True, size_wh=(1, 1))
    name = ACTIVATIONS[word].onnx(graph, graph.node("Identity", "images"))
    values = onnx.helper.make_tensor_value_info
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node(n.op, n.inputs, n.outputs, **n.attributes) for n in graph.nodes],
            "g",
            [values("images", 1, [1, None, 1, 1])],
            [values(name, 1, None)],
            [onnx.numpy_helper.from_array(value, key) for key, value in graph.constants.items()],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    x = np.concatenate((np.linspace(-9, 9, 145), [-4, -2, -1, 0, 1, 2, 4, 6])).astype(np.float32)[None, :, None, None]
    found = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"images": x})[0]
    wanted = ACTIVATIONS[word].torch(torch.from_numpy(x)).numpy()
    assert np.abs(found - wanted).max() <= 2e-6 * (1 + np.abs(wanted).max())

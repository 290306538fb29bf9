"""Networks run by an inference engine: when, with which outputs, and what happens if the engine cannot run them."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import inference.engine as engine
import inference.model as model_module
from inference.engine import ENGINES, EngineNetwork
from inference.model import open_model
from inference.predictor import Model
from models.layers.convolutional import Convolutional
from models.network import Network
from models.plan import make_plan, read_plan
from tests.paths import REFERENCE
from tests.recipe import weights_file
from utils.cfg import parse
from utils.errors import InputError, RunError

CFG = REFERENCE / "cfg" / "yolo_basic.cfg"
CPU = torch.device("cpu")
SOFT = "[net]\nwidth=8\nheight=8\nchannels=3\n[avgpool]\n[softmax]\n"


def installed(name: str) -> str:
    if importlib.util.find_spec("onnx") is None or importlib.util.find_spec(name) is None:
        pytest.skip(f"needs the packages onnx and {name}")
    return name


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "a.weights"
    path.write_bytes(weights_file(Network(read_plan(CFG)).tensors(), 7))
    return path


def opened(weights: Path, backend: str = "auto", **options: Any) -> Model:
    return open_model(weights, cfg=CFG, backend=backend, device="cpu", **options)


def images_for(model: Model, count: int) -> torch.Tensor:
    width, height = model.size_wh
    return torch.rand(count, model.channels, height, width, generator=torch.Generator().manual_seed(count))


def engine_of(model: Model) -> EngineNetwork:
    assert isinstance(model.network, EngineNetwork)
    return model.network


@pytest.mark.parametrize("size_wh", [None, (160, 96)])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", ENGINES)
def test_outputs_are_those_of_pytorch(weights: Path, name: str, count: int, size_wh: tuple[int, int] | None) -> None:
    plain, model = (opened(weights, each, img_size=size_wh) for each in ("torch", installed(name)))
    images = images_for(model, count)
    with torch.inference_mode():
        (expected,), (found,) = plain.forward(images), model.forward(images)
    assert isinstance(plain.network, Network) and engine_of(model).is_open
    for one, other in zip(expected, found, strict=True):
        assert one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_other_sizes_and_empty_batches_go_through_pytorch(weights: Path) -> None:
    model = opened(weights, installed("openvino"))
    for shape in ((1, 3, 64, 128), (0, 3, *model.size_wh)):
        assert len(model.network(torch.rand(shape))[0]) == shape[0]


def test_the_number_of_images_decides(weights: Path) -> None:
    installed("openvino")
    worth = int(np.ceil(engine_of(opened(weights)).worth))
    announced = opened(weights)
    announced.expect(worth - 1)
    assert not engine_of(announced).is_open
    announced.expect(worth)
    assert engine_of(announced).is_open
    endless = opened(weights)
    endless.expect(None)
    assert engine_of(endless).is_open


def test_single_images_add_up(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed("openvino")
    model = opened(weights)
    engine_of(model).worth = 3
    image = np.zeros((20, 30, 3), np.uint8)
    for expected in (False, False, True):
        model.predict([image])
        assert engine_of(model).is_open is expected


def test_without_an_engine_pytorch_runs(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "is_installed", lambda name: False)
    assert isinstance(opened(weights).network, Network)


def test_onnx_runtime_takes_over_without_openvino(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed("onnxruntime")
    monkeypatch.setattr(engine, "is_installed", lambda name: name != "openvino")
    model = opened(weights)
    model.expect(None)
    assert engine_of(model).name == "onnxruntime"


@pytest.mark.parametrize("half", [False, True])
def test_outputs_that_differ(weights: Path, half: bool, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    installed("openvino")
    export = Convolutional.export
    monkeypatch.setattr(
        Convolutional, "export", lambda self, graph, *rest: graph.node("Add", export(self, graph, *rest), 0.3)
    )
    network = opened(weights, "torch").network
    assert isinstance(network, Network)
    required = EngineNetwork(network, "openvino", CPU, required=True, half=half)
    lenient = EngineNetwork(network, "openvino", CPU, half=half)
    lenient.expect(None)
    images = torch.rand(2, 3, *reversed(opened(weights).size_wh))
    with torch.inference_mode():
        with pytest.raises(RunError, match=r"differ from PyTorch's by .* use --backend torch"):
            required(images)
        expected, found = network(images), lenient(images)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    assert not lenient.is_open and "PyTorch runs the network instead" in caplog.text


def test_layers_that_onnx_cannot_express(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    installed("openvino")

    def refused(*_: Any) -> None:
        raise InputError("a.cfg:5: [softmax] has no counterpart in ONNX")

    network = Network(make_plan(parse(SOFT))).fold()
    monkeypatch.setattr(type(network.layers[1]), "export", refused)
    lenient = EngineNetwork(network, "openvino", CPU)
    with caplog.at_level(logging.WARNING):
        lenient.expect(None)
    assert "has no counterpart in ONNX; PyTorch runs the network instead" in caplog.text
    assert lenient(torch.rand(1, 3, 8, 8))[0].shape == (1, 3, 1, 1)
    with pytest.raises(InputError, match="no counterpart"):
        EngineNetwork(network, "openvino", CPU, required=True)


def test_half_on_a_processor(weights: Path) -> None:
    installed("openvino")
    if not model_module.has_bfloat16():
        pytest.skip("needs a processor with bfloat16 instructions")
    plain, model = opened(weights, "torch"), opened(weights, half=True)
    images = images_for(model, 2)
    with torch.inference_mode():
        (expected,), (found,) = plain.forward(images), model.forward(images)
    errors = [float((one - other).abs().mean() / one.std()) for one, other in zip(expected, found, strict=True)]
    assert all(1e-4 < error < 0.05 for error in errors) and model.engine == "OpenVINO, bf16"


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_half_on_a_processor_needs_openvino(weights: Path, backend: str) -> None:
    with pytest.raises(InputError, match=f"--half: on a CPU it needs --backend openvino, found {backend}"):
        opened(weights, backend, half=True)


def test_half_without_instructions(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "has_bfloat16", lambda: False)
    with pytest.raises(InputError, match="--half: this CPU has no bfloat16 instructions"):
        opened(weights, half=True)


@pytest.mark.parametrize("backend", ["opencv", "torchscript"])
def test_engines_for_exported_models_only(weights: Path, backend: str) -> None:
    with pytest.raises(InputError, match="runs only exported models"):
        opened(weights, backend)


@pytest.mark.parametrize(("name", "text"), [("onnxruntime", "ONNX Runtime, fp32"), ("openvino", "OpenVINO, fp32")])
def test_engine_and_precision_are_reported(weights: Path, name: str, text: str) -> None:
    assert opened(weights, installed(name)).engine == text
    assert opened(weights, "torch").engine == "PyTorch, fp32"


def test_the_running_engine_is_reported(weights: Path) -> None:
    """With --backend auto this is PyTorch, until enough images make another engine worthwhile."""
    name = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}[engine.default_engine() or pytest.skip("no engine")]
    model = opened(weights)
    model.forward(images_for(model, 1))
    assert model.engine == "PyTorch, fp32"
    model.expect(None)
    model.forward(images_for(model, 1))
    assert model.engine == f"{name}, fp32"
    engine_of(model)._give_up("a test")
    assert model.engine == "PyTorch, fp32"

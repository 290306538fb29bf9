"""A model gives the same boxes in every format and engine."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import convert
import export
from inference.backends import ExportedModel
from inference.model import open_model
from inference.predictor import NmsOptions
from models.formats.files import LoadOptions
from models.network import Network
from models.plan import read_plan
from tests.inference.test_real_boxes import FOLDERS, RESULTS, name_of, overlap
from tests.paths import REFERENCE, REPOSITORY, shared
from tests.recipe import weights_file
from utils.detections import Detections
from utils.errors import InputError, RunError
from utils.letterbox import Letterbox, network_input

CFG = REFERENCE / "cfg" / "yolo_basic.cfg"
NEEDS = {".onnx": "onnx", ".xml": "openvino", ".safetensors": "safetensors"}
ENGINES = {"onnxruntime": "onnxruntime", "openvino": "openvino"}

# (extension, engine) of every kind of model that can be opened
WAYS = [
    (".weights", "torch"),
    (".weights", "onnxruntime"),
    (".weights", "openvino"),
    (".pt", "auto"),
    (".safetensors", "auto"),
    (".onnx", "onnxruntime"),
    (".onnx", "opencv"),
    (".onnx", "openvino"),
    (".xml", "openvino"),
    (".torchscript", "torchscript"),
]

# By default one recording is compared in every way; with the environment variable all of them are (takes minutes).
PICKED = RESULTS if os.environ.get("CSPYOLO_ALL_RECORDINGS") == "1" else RESULTS[:1]


def needed(suffix: str, engine: str | None) -> None:
    for package in (NEEDS.get(suffix), ENGINES.get(engine or "")):
        if package and importlib.util.find_spec(package) is None:
            pytest.skip(f"needs the package {package}")


def made(cfg: Path, weights: Path, suffix: str, *flags: str) -> Path:
    """Write the file of that format next to `weights` with the project's commands."""
    out = weights.with_suffix(suffix)
    source = ["--cfg", str(cfg), "--weights", str(weights)]
    if suffix in (".pt", ".safetensors"):
        assert convert.main(["weights", *source, "--out", str(out)]) == 0
    elif suffix != ".weights":
        kind = {".onnx": "onnx", ".xml": "openvino", ".torchscript": "torchscript"}[suffix]
        arguments = [*source, "--include", kind, "--out", str(out.with_suffix("")), *flags]
        if importlib.util.find_spec("onnxruntime") is None:
            arguments.append("--no-check")
        assert export.main(arguments) == 0
    return out


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "a.weights"
    path.write_bytes(weights_file(Network(read_plan(CFG)).tensors(), 7))
    return path


def found_by(path: Path, engine: str, nms: NmsOptions, *, augment: bool = False) -> list[Detections]:
    model = open_model(path, cfg=CFG if path.suffix == ".weights" else None, backend=engine, device="cpu")
    width, height = model.size_wh
    images = torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(3))
    fits = [Letterbox(image_wh=(2 * width, height), network_wh=(width, height))] * 3
    with torch.inference_mode():
        return model.postprocess(model.forward(images, augment=augment), fits, nms)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for models shared by several tests, with the weights under one name per `--output`."""
    folder = tmp_path_factory.mktemp("models")
    for output in ("raw", "boxes"):
        (folder / f"{output}.weights").write_bytes(weights_file(Network(read_plan(CFG)).tensors(), 7))
    return folder


@pytest.mark.parametrize(("output", "augment"), [("raw", False), ("raw", True), ("boxes", False)])
@pytest.mark.parametrize(("suffix", "engine"), WAYS)
def test_the_same_boxes(models: Path, suffix: str, engine: str, output: str, augment: bool) -> None:
    needed(suffix, engine)
    nms = NmsOptions(conf=0.2, iou=0.4)
    weights = models / f"{output}.weights"
    expected = found_by(weights, "torch", nms, augment=augment)
    assert sum(map(len, expected)) > 20
    path = weights.with_suffix(suffix)
    if not path.exists():
        made(CFG, weights, suffix, "--output", output)
    for one, other in zip(expected, found_by(path, engine, nms, augment=augment), strict=True):
        assert len(one) == len(other)
        assert np.abs(one.scores - other.scores).max() < 1e-4
        assert np.array_equal(one.class_ids, other.class_ids)
        assert np.abs(one.xyxy - other.xyxy).max() < 0.02


@pytest.mark.parametrize(("suffix", "engine"), WAYS)
def test_threads_get_the_outputs_of_their_own_images(weights: Path, suffix: str, engine: str) -> None:
    needed(suffix, engine)
    model = open_model(made(CFG, weights, suffix), cfg=CFG if suffix == ".weights" else None, backend=engine)
    width, height = model.size_wh
    inputs = torch.rand((8, 1, model.channels, height, width), generator=torch.Generator().manual_seed(0))
    expected = [model.forward(each)[0] for each in inputs]

    def differs(number: int) -> bool:
        (found,) = model.forward(inputs[number])
        return not all(torch.allclose(*pair, atol=1e-4) for pair in zip(found, expected[number], strict=True))

    with ThreadPoolExecutor(len(inputs)) as threads:
        assert not any(threads.map(differs, [*range(len(inputs))] * 20))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_built_in_nms(weights: Path, engine: str) -> None:
    needed(".onnx", engine)
    flags = ("--output", "nms", "--conf-thres", "0.2", "--iou-thres", "0.4", "--max-det", "100000")
    path = made(CFG, weights, ".onnx", *flags)
    expected = found_by(weights, "torch", NmsOptions(conf=0.2, iou=0.4))
    for one, other in zip(expected, found_by(path, engine, NmsOptions(conf=0.2, iou=0.4)), strict=True):
        assert len(one) == len(other) and np.abs(one.scores - other.scores).max() < 1e-4


@pytest.mark.parametrize(("suffix", "engine"), [way for way in WAYS if way != (".weights", "torch")])
@pytest.mark.parametrize("recorded", PICKED, ids=name_of)
def test_real_weights_find_what_the_original_found(
    recorded: dict, suffix: str, engine: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    needed(suffix, engine)
    folder, name = FOLDERS[recorded["model"]]
    source = shared("weights") / folder
    copied = tmp_path_factory.getbasetemp() / f"{name}.weights"
    if not copied.exists():
        copied.write_bytes((source / f"{name}.weights").read_bytes())
    path = copied.with_suffix(suffix)
    if not path.exists():
        made(source / f"{name}.cfg", copied, suffix)
    cfg = source / f"{name}.cfg" if suffix == ".weights" else None
    model = open_model(path, cfg=cfg, backend=engine, device="cpu")
    image = cv2.imread(str(shared("datasets/pictures") / f"{recorded['image_name']}.png"))[:, :, ::-1]
    size = (image.shape[1], image.shape[0])
    fit = Letterbox(image_wh=size, network_wh=model.size_wh, letter_box=bool(recorded["letterbox"]))
    images = torch.from_numpy(network_input(np.ascontiguousarray(image), fit))[None]
    with torch.inference_mode():
        found = model.postprocess(model.forward(images), [fit], NmsOptions(conf=recorded["thresh"]))[0]
    left = list(found)
    for box in recorded["detections"]:
        x, y, w, h = box["box"]
        corners = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * (size * 2)
        match = [
            place
            for place, (xyxy, score, class_id) in enumerate(left)
            if class_id == box["class"] and overlap(corners, xyxy) >= 0.99 and abs(score - box["prob"]) < 0.01
        ]
        assert match, box
        left.pop(match[0])
    assert not [score for _, score, _ in left if score > recorded["thresh"] + 0.001]


def test_size_that_contradicts_the_model(weights: Path) -> None:
    needed(".onnx", "onnxruntime")
    path = made(CFG, weights, ".onnx")
    with pytest.raises(InputError, match="it cannot run at 640x640"):
        open_model(path, img_size=(640, 640))
    dynamic = made(CFG, weights, ".onnx", "--dynamic", "size", "batch")
    assert open_model(dynamic, img_size=(160, 96)).size_wh == (160, 96)


def test_overflowing_boxes_stay_finite(weights: Path) -> None:
    """exp(w) overflows with extreme weights, and JSON has no infinity."""
    model = open_model(weights, cfg=CFG, backend="torch", device="cpu")
    width, height = model.size_wh
    with torch.inference_mode():
        outputs = model.forward(torch.zeros(1, 3, height, width), augment=False)
        for each in outputs[0]:
            each.fill_(200)
        (found,) = model.postprocess(outputs, [Letterbox(image_wh=(9, 7), network_wh=model.size_wh)], NmsOptions())
    assert len(found) and np.isfinite(found.xyxy).all()


@pytest.mark.parametrize("batch", [2**31 - 1, 2**63])
def test_a_batch_too_large_for_memory(batch: int, weights: Path) -> None:
    needed(".onnx", "onnxruntime")
    model = open_model(made(CFG, weights, ".onnx"))
    assert isinstance(model.network, ExportedModel)
    model.network.metadata = replace(model.network.metadata, batch=batch)
    with pytest.raises(RunError, match=f"not enough memory for its batch of {batch} images"):
        model.predict([np.zeros((8, 8, 3), np.uint8)])


def test_opencv_rejects_built_in_nms(weights: Path) -> None:
    """OpenCV's NMS divides by zero if nothing is found, which kills the process."""
    needed(".onnx", "opencv")
    with pytest.raises(InputError, match="has NMS inside, which OpenCV crashes in"):
        open_model(made(CFG, weights, ".onnx", "--output", "nms", "--no-check"), backend="opencv")


def test_an_engine_out_of_memory_is_a_failed_run(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model(made(CFG, weights, ".torchscript"))
    assert isinstance(model.network, ExportedModel)

    def lack(images: torch.Tensor) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(model.network.session, "_model", lack)
    with pytest.raises(RunError, match=r"\.torchscript: out of memory"):
        model.predict([np.zeros((8, 8, 3), np.uint8)])


def test_an_engine_that_does_not_fit(weights: Path) -> None:
    with pytest.raises(InputError, match="cannot run it, expected torchscript"):
        open_model(made(CFG, weights, ".torchscript"), backend="openvino")


@pytest.mark.parametrize("name", ["a.onnx", "a.xml", "a.torchscript"])
@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04 no archive", b"\x08\x07"])
def test_files_that_are_not_models(name: str, content: bytes, tmp_path: Path) -> None:
    needed(Path(name).suffix, "onnxruntime")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        open_model(tmp_path / name)


def test_a_model_that_differs_is_not_written(weights: Path) -> None:
    needed(".onnx", "onnxruntime")
    arguments = ["--cfg", str(CFG), "--weights", str(weights), "--out", str(weights.with_suffix(""))]
    with pytest.raises(RunError, match="is not written"):
        export.main([*arguments, "--half", "--tolerance", "1e-9"])
    assert sorted(path.name for path in weights.parent.iterdir()) == ["a.weights"]


def test_missing_package(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(InputError, match="pip install onnx"):
        export.main(["--cfg", str(CFG), "--weights", str(weights), "--out", str(weights.with_suffix(""))])


@pytest.mark.parametrize(("suffix", "engine"), WAYS)
def test_compare(weights: Path, suffix: str, engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    needed(suffix, engine)
    path = made(CFG, weights, suffix)
    flags = ["--backend", "torch", engine]
    assert convert.main(["compare", str(weights), str(path), "--cfg", str(CFG), "--conf-thres", "0.2", *flags]) == 0
    text = capsys.readouterr().out
    assert "0 only in the first, 0 only in the second" in text and "the same up to rounding" in text


def test_compare_names_the_first_layer_that_differs(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from models.formats.files import load_model, save_model

    network, _ = load_model(weights, LoadOptions(cfg=CFG))
    with torch.no_grad():
        list(network)[1].weights[0] += 0.01
    save_model(network, weights.with_name("b.weights"))
    assert convert.main(["compare", str(weights), str(weights.with_name("b.weights")), "--cfg", str(CFG)]) == 1
    assert "they differ from layer 1 [convolutional] on" in capsys.readouterr().out


def test_compare_takes_the_cfg_for_the_file_without_one(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, folded = made(CFG, weights, ".pt"), weights.with_name("b.weights")
    cfg = str(weights.with_name("b.cfg"))
    assert convert.main(["fold", "--weights", str(checkpoint), "--out", str(folded), "--out-cfg", cfg]) == 0
    assert convert.main(["compare", str(checkpoint), str(folded), "--cfg", cfg]) == 0
    assert "the same up to rounding" in capsys.readouterr().out


def test_compare_of_nothing_is_not_the_same(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needed(".onnx", "opencv")
    path = made(CFG, weights, ".onnx")
    arguments = ["compare", str(weights), str(path), "--cfg", str(CFG), "--conf-thres", "1"]
    assert convert.main([*arguments, "--backend", "torch", "opencv"]) == 1
    assert "nothing could be compared: no boxes" in capsys.readouterr().out


def test_flags_without_effect_on_an_exported_model(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    needed(".onnx", None)
    open_model(made(CFG, weights, ".onnx"), ema=True, partial=True)
    assert "--ema has no effect" in caplog.text and "--partial has no effect" in caplog.text


def test_names_that_do_not_fit_are_not_stored(weights: Path) -> None:
    needed(".onnx", None)
    short = weights.with_name("short.names")
    short.write_text("one\n")
    source = ["--cfg", str(CFG), "--weights", str(weights), "--names", str(short)]
    with pytest.raises(InputError, match=r"short\.names: has 1 names"):
        convert.main(["weights", *source, "--out", str(weights.with_suffix(".pt"))])
    with pytest.raises(InputError, match=r"short\.names: has 1 names"):
        export.main([*source, "--output", "raw", "--out", str(weights.with_suffix(""))])


@pytest.mark.parametrize(
    "flags", [("--conf-thres", "2"), ("--iou-thres", "-1"), ("--max-det", "0"), ("--tolerance", "0")]
)
def test_export_flags_out_of_range(flags: tuple[str, str]) -> None:
    with pytest.raises(InputError, match=f"^{flags[0]}: expected a (whole )?number"):
        export.main(["--weights", "a.weights", "--output", "nms", *flags])


def test_nms_flags_without_nms(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    needed(".onnx", None)
    made(CFG, weights, ".onnx", "--conf-thres", "0.5", "--no-check")
    assert "no effect without --output nms" in caplog.text


def test_a_lower_threshold_than_that_of_the_model(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    needed(".onnx", "onnxruntime")
    path = made(CFG, weights, ".onnx", "--output", "nms", "--conf-thres", "0.5", "--no-check")
    found_by(path, "onnxruntime", NmsOptions(conf=0.5))
    assert "are missing" not in caplog.text
    found_by(path, "onnxruntime", NmsOptions(conf=0.2))
    assert "threshold of 0.5: lower scores are missing" in caplog.text


def test_openvino_weights_are_a_separate_file(weights: Path) -> None:
    needed(".xml", "openvino")
    path = made(CFG, weights, ".xml")
    path.with_suffix(".bin").unlink()
    with pytest.raises(InputError, match=r"a\.bin with its weights is missing"):
        open_model(path)


CLOSED = """
import signal, sys
import torch
from inference.backends import OpenVinoSession
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below nohup
models = [OpenVinoSession(sys.argv[1], torch.device("cpu")) for _ in range(2)]
for model in models:
    model.compile(False)
while models:
    del model
    model = models.pop(0)
del model
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_after_models_were_closed(weights: Path) -> None:
    """OpenVINO's plugin leaves an unmapped signal stack behind if several are closed in the order of their creation."""
    needed(".xml", "openvino")
    command = [sys.executable, "-c", CLOSED, str(made(CFG, weights, ".xml"))]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr

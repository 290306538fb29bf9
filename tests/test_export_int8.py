"""export.py --int8 with the shipped scenes detector: what is written, rejected and reported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import export
from data.scenes import make_scenes
from evaluation.int8 import Int8Data, _bounds
from inference.model import open_model
from models.load import load
from models.weights import save_weights
from tests.paths import REPOSITORY
from tests.test_test_script import script
from utils.cli import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_OK, run_script

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

SCENES = REPOSITORY / "weights" / "scenes"
BOTH = ("onnx", "openvino")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with 20 training and 4 validation images."""
    return make_scenes(tmp_path_factory.mktemp("int8") / "scenes", 20, seed=5, size=224)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def run(*flags: object) -> int:
    source = ["--cfg", f"{SCENES}.cfg", "--weights", f"{SCENES}.weights", "--out", "m", "--img-size", "224"]
    return run_script(export.main, [*source, "--int8", "--calib-images", "4", *map(str, flags)])


def test_written_measured_and_run_by_test_script(
    scenes: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--data", scenes, "--include", *BOTH, "--max-drop", "0.05") == EXIT_OK
    said = capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == ["m.bin", "m.onnx", "m.xml"]
    assert (folder / "m.onnx").stat().st_size < 0.4 * Path(f"{SCENES}.weights").stat().st_size
    for name in ("m.onnx", "m.xml"):
        report = open_model(name).network.metadata.int8  # type: ignore[attr-defined]
        assert report["metric"] == "mAP@0.5" and report["images"] == 4 and report["data"] == str(scenes)
        assert f"{name}: " in said and f"in 8 bits {report['int8']:.2%}" in said
        assert report["float"] > 0.8 and report["float"] - report["int8"] <= 0.05
        assert run_script(script.main, ["--weights", name, "--data", str(scenes), "--print", "darknet"]) == EXIT_OK
        assert f"{report['int8']:.4f}"[:5] in capsys.readouterr().out


def test_a_large_loss_is_refused(
    scenes: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges that are too narrow clip most of the values."""
    own = export.calibrate
    narrow = lambda *given: {name: (low / 9, high / 9) for name, (low, high) in own(*given).items()}  # noqa: E731
    monkeypatch.setattr(export, "calibrate", narrow)
    (folder / "m.onnx").write_text("before")
    assert run("--data", scenes) == EXIT_FAILED
    said = capsys.readouterr().err
    assert "m.onnx: is not written: 8 bits lower mAP@0.5 from" in said and "--calib-images" in said
    assert [path.name for path in folder.iterdir()] == ["m.onnx"] and (folder / "m.onnx").read_text() == "before"


def test_built_in_nms(scenes: Path, folder: Path) -> None:
    assert run("--data", scenes, "--output", "nms", "--dynamic", "batch", "--max-drop", "0.05") == EXIT_OK
    model = open_model("m.onnx")
    assert model.network.metadata.outputs == "nms"  # type: ignore[attr-defined]
    boxes = [len(found) for found in model.predict([torch.full((3, 224, 224), 0.5)] * 2)]
    assert len(boxes) == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--int8: expected --data"),
        (["--data", "absent.data"], "absent.data: no such dataset"),
        (["--data", "my.data", "--include", "onnx", "torchscript"], "cannot be written as torchscript"),
        (["--data", "my.data", "--half"], "--int8 and --half cannot be combined"),
        (["--data", "my.data", "--no-check"], "--int8 and --no-check cannot be combined"),
        (["--data", "my.data", "--tolerance", "1"], "--int8 and --tolerance cannot be combined"),
        (["--data", "same.data"], "same.data: 4 of 4 validation images are also training images"),
        (["--data", "empty.data"], "empty.data: no images in split 'train'"),
        (["--data", "unlabelled.data"], "unlabelled.data: has no labels in split 'val'"),
        (["--data", "broken.data"], "broken.jpg"),
    ],
)
def test_input_errors(
    scenes: Path, folder: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images = sorted(scenes.parent.rglob("*.jpg"))
    lists = {"train": images[:4], "val": images[4:8], "empty": [], "plain": [folder / "plain.jpg"]}
    lists["broken"] = [folder / "broken.jpg"]
    (folder / "plain.jpg").write_bytes(images[0].read_bytes())
    (folder / "broken.jpg").write_bytes(b"no image")
    for name, paths in lists.items():
        (folder / f"{name}.txt").write_text("".join(f"{path}\n" for path in paths))
    names = scenes.parent / "scenes.names"
    pairs = {
        "my": ("train", "val"),
        "same": ("val", "val"),
        "empty": ("empty", "val"),
        "unlabelled": ("train", "plain"),
    }
    pairs["broken"] = ("broken", "val")
    for name, (train, valid) in pairs.items():
        text = f"classes=10\ntrain={train}.txt\nvalid={valid}.txt\nnames={names}\n"
        (folder / f"{name}.data").write_text(text)
    before = sorted(folder.iterdir())
    assert run(*flags) == EXIT_BAD_INPUT
    assert said in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


def test_calibration_images_are_spread_over_the_training_split(scenes: Path) -> None:
    data, every = (Int8Data.open(scenes, count) for count in (5, 999))
    assert len(every.images) == 20 and data.images == every.images[::4]
    assert not set(every.images) & set(every.validation.splits["val"])


def test_bounds_ignore_one_value_in_ten_thousand() -> None:
    values = torch.zeros(100, 200)
    values[3, 4], values[5, 6], values[7, 8] = 50.0, 7.0, -9.0
    assert _bounds(values) == (0.0, 7.0)
    assert _bounds(values[:10]) == (-9.0, 50.0)


CLASSIFIER = """[net]
width=16
height=16
channels=3
[convolutional]
filters=3
size=1
activation=relu
[convolutional]
filters=3
size=1
activation=linear
[avgpool]
[softmax]
"""


@pytest.mark.parametrize(
    ("cfg", "code"),
    [(CLASSIFIER, EXIT_OK), ("[net]\nwidth=16\nheight=16\nchannels=3\n[avgpool]\n[softmax]\n", EXIT_BAD_INPUT)],
)
def test_classifiers_by_top_1(cfg: str, code: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The class is the brightest colour; the second network has no convolution to quantise."""
    (folder / "c.cfg").write_text(cfg)
    network = load(folder / "c.cfg")
    for _, item in network.stored():
        item.tensor.data[:] = 10 * torch.eye(3).view(item.tensor.shape) if item.kind == "weights" else 0.0
    save_weights(network, folder / "c.weights")
    names = ("blue", "green", "red")
    for split in ("train", "val"):
        for number, name in enumerate(names):
            pixels = np.zeros((16, 16, 3), np.uint8)
            pixels[..., number] = 250  # BGR
            (folder / split).mkdir(exist_ok=True)
            cv2.imwrite(str(folder / split / f"{name}.png"), pixels)
        (folder / f"{split}.txt").write_text("".join(f"{folder / split / name}.png\n" for name in names))
    (folder / "names.txt").write_text("red\ngreen\nblue\n")
    (folder / "c.data").write_text("classes=3\ntrain=train.txt\nvalid=val.txt\nnames=names.txt\ntop=1\n")
    flags = ["--cfg", "c.cfg", "--weights", "c.weights", "--int8", "--data", "c.data", "--include", *BOTH]
    assert run_script(export.main, flags) == code
    said = capsys.readouterr()
    if code == EXIT_OK:
        assert said.out.count("top-1 100.00%, in 8 bits 100.00%, calibrated on 3 images") == 2
    else:
        assert "c.cfg: has no convolution before the last one" in said.err

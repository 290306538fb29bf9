"""The public API: YOLO and what it returns."""

from __future__ import annotations

import importlib.util
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cspyolo import YOLO, InputError, Results, __version__
from cspyolo.yolo import Tracker
from models.load import load
from models.weights import save_weights
from tests.paths import REPOSITORY
from tests.small_model import make_small_model
from utils.version import VERSION

SAMPLES = REPOSITORY / "data" / "samples"
IMAGE = str(SAMPLES / "scene1.jpg")


def installed(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"needs {package}")


@pytest.fixture(scope="module")
def model() -> YOLO:
    return YOLO()


@pytest.fixture(scope="module")
def array() -> NDArray[np.uint8]:
    return np.asarray(cv2.imread(IMAGE), np.uint8)


@pytest.fixture(scope="module")
def result(model: YOLO) -> Results:
    (found,) = model(IMAGE)
    assert len(found) > 2
    return found


def test_version_has_one_home() -> None:
    assert __version__ == VERSION


def test_model_attributes(model: YOLO) -> None:
    names = (REPOSITORY / "weights" / "scenes.names").read_text().split()
    assert model.task == "detect" and list(model.names.values()) == names and model.device.type == "cpu"
    assert "csppeleenet-efm-bccd" in YOLO.shipped()


@pytest.mark.parametrize("kind", ["bgr", "bgra", "rgb", "rgba", "pil", "tensor", "float tensor"])
def test_an_image_in_memory_gives_the_boxes_of_its_file(
    kind: str, model: YOLO, array: NDArray[np.uint8], result: Results
) -> None:
    rgb = np.ascontiguousarray(array[..., ::-1])
    alpha = np.full((*array.shape[:2], 1), 255, np.uint8)
    planes = torch.from_numpy(rgb).permute(2, 0, 1)
    source = {
        "bgr": array,
        "bgra": np.concatenate([array, alpha], axis=2),
        "rgb": rgb,
        "rgba": np.concatenate([rgb, alpha], axis=2),
        "tensor": planes,
        "float tensor": planes / 255,
    }
    if kind == "pil":
        source["pil"] = pytest.importorskip("PIL.Image").open(IMAGE)
    (found,) = model(source[kind], rgb=kind.startswith("rgb"))
    np.testing.assert_allclose(found.boxes.xyxy, result.boxes.xyxy, atol=1e-3)
    np.testing.assert_array_equal(found.boxes.cls, result.boxes.cls)


def test_grey_arrays(model: YOLO, array: NDArray[np.uint8]) -> None:
    grey = cv2.cvtColor(array, cv2.COLOR_BGR2GRAY)
    flat, deep = model([grey, grey[..., None]])
    np.testing.assert_array_equal(flat.boxes.xyxy, deep.boxes.xyxy)


def test_lists_and_batches_keep_their_order(model: YOLO, array: NDArray[np.uint8], result: Results) -> None:
    black = np.zeros((50, 80, 3), np.uint8)
    found = model([IMAGE, black, array], batch=2)
    assert isinstance(found, list) and [each.orig_shape for each in found] == [
        result.orig_shape,
        (50, 80),
        result.orig_shape,
    ]
    np.testing.assert_allclose(found[2].boxes.xyxy, result.boxes.xyxy, atol=1e-3)
    assert len(found[1]) == 0 and found[1].verbose() == "no objects"


def test_videos_and_streams_give_generators(model: YOLO) -> None:
    frames = model(SAMPLES / "scenes.mp4", vid_stride=25)
    assert isinstance(frames, Iterator)
    assert [(each.frame, each.path) for each in frames] == [
        (number, str(SAMPLES / "scenes.mp4")) for number in range(0, len(list(model(SAMPLES / "scenes.mp4"))), 25)
    ]
    assert isinstance(model(IMAGE, stream=True), Iterator)


def test_a_closed_generator_ends(model: YOLO) -> None:
    frames = model(SAMPLES / "scenes.mp4")
    assert isinstance(frames, Iterator)
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    assert next(frames, None) is None


def test_thresholds_and_classes(model: YOLO, result: Results) -> None:
    name = result.names[int(result.boxes.cls[0])]
    (found,) = model(IMAGE, classes=name)
    assert set(found.boxes.cls.tolist()) == {int(result.boxes.cls[0])}
    least = float(np.median(result.boxes.conf))
    (sure,) = model(IMAGE, conf=least)
    assert len(sure) == int((result.boxes.conf > least).sum())


def test_input_size_can_change(model: YOLO, result: Results) -> None:
    (other,) = model(IMAGE, img_size=(160, 128))
    assert not np.array_equal(other.boxes.conf, result.boxes.conf)
    (again,) = model(IMAGE)
    np.testing.assert_array_equal(again.boxes.xyxy, result.boxes.xyxy)


def test_boxes_in_every_form(result: Results) -> None:
    boxes, (height, width) = result.boxes, result.orig_shape
    size = np.array([width, height, width, height], np.float32)
    np.testing.assert_allclose(boxes.xyxyn * size, boxes.xyxy, rtol=1e-5)
    np.testing.assert_allclose(boxes.xywhn * size, boxes.xywh, rtol=1e-5)
    np.testing.assert_allclose(boxes.xywh[:, 2:], boxes.xyxy[:, 2:] - boxes.xyxy[:, :2], rtol=1e-4)
    assert boxes.data.shape == (len(boxes), 6) and boxes.id is None and boxes.cpu().numpy() is boxes
    assert [int(each.cls[0]) for each in boxes] == boxes.cls.tolist()


def test_choosing_boxes(result: Results) -> None:
    assert len(result[0]) == 1 and len(result[1:3]) == 2 and len(result[[0, 2]]) == 2
    mask = result.boxes.conf > result.boxes.conf[1]
    assert len(result[mask]) == mask.sum() == 1
    assert [len(each) for each in result] == [1] * len(result)
    with pytest.raises(IndexError):
        result[len(result)]


def test_plain_values(result: Results) -> None:
    plain = json.loads(result.to_json())
    assert plain == result.to_dict() and plain["path"] == IMAGE and plain["frame"] is None
    assert len(plain["objects"]) == len(result) and set(plain["speed_ms"]) == {"preprocess", "inference", "postprocess"}
    first = plain["objects"][0]
    assert first["name"] == result.names[first["class"]] and list(first["box"]) == ["x1", "y1", "x2", "y2"]
    assert result.verbose() in repr(result)


def test_drawings_and_files(result: Results, tmp_path: Path) -> None:
    drawn = result.plot()
    assert drawn.shape == result.orig_img.shape and (drawn != result.orig_img).any()
    np.testing.assert_array_equal(result.plot(rgb=True)[..., ::-1], drawn)
    saved = cv2.imread(str(result.save(tmp_path / "a.png")))
    np.testing.assert_array_equal(saved, drawn)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(result._repr_png_(), np.uint8), cv2.IMREAD_COLOR), drawn)
    crops = result.save_crop(tmp_path / "crops")
    assert len(crops) == len(result) and all(path.stat().st_size for path in crops)
    rows = np.loadtxt(result.save_txt(tmp_path / "a.txt", save_conf=True))
    np.testing.assert_allclose(rows[:, 1:5], result.boxes.xywhn, atol=1e-5)
    with pytest.raises(InputError, match=r"a.xyz: cannot write this format"):
        result.save(tmp_path / "a.xyz")


def test_no_window_without_a_screen(result: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="no display"):
        result.show()


@installed("pandas")
def test_table(result: Results) -> None:
    table = result.to_df()
    assert list(table.columns) == ["name", "class", "confidence", "x1", "y1", "x2", "y2"] and len(table) == len(result)
    assert list(result[[]].to_df().columns) == list(table.columns)


@installed("supervision")
def test_supervision(result: Results) -> None:
    found = result.to_supervision()
    np.testing.assert_array_equal(found.xyxy, result.boxes.xyxy)
    assert found.data["class_name"][0] == result.names[int(result.boxes.cls[0])]


@installed("trackers")
def test_tracks_keep_their_numbers(result: Results) -> None:
    follow = Tracker("bytetrack")
    numbers = [[row["track_id"] for row in follow(result).summary()] for _ in range(6)]
    assert numbers[-1] and numbers[-1] == numbers[-2] and len(set(numbers[-1])) == len(numbers[-1])


@installed("trackers")
def test_tracking_a_video(model: YOLO) -> None:
    for found in model.track(SAMPLES / "scenes.mp4", vid_stride=5):
        assert found.boxes.id is not None and len(found.boxes.id) == len(found)
        assert all(row["track_id"] >= 0 for row in found.summary())


def test_names_from_anywhere(tmp_path: Path) -> None:
    cfg, weights, _ = make_small_model(tmp_path)
    (tmp_path / "own.names").write_text("left\nright\n")
    (tmp_path / "own.data").write_text("names = own.names\n")
    expected = {0: "left", 1: "right"}
    for names in ("own.names", "own.data"):
        assert YOLO(cfg, weights, names=tmp_path / names).names == expected
    assert YOLO(cfg, weights, names=["left", "right"]).names == YOLO(cfg, weights, names=expected).names == expected
    with pytest.raises(InputError, match="names: found 1"):
        YOLO(cfg, weights, names=["left"])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("a.weights", r"a.weights: expected the cfg too: YOLO\('a.cfg', 'a.weights'\)"),
        ("nobody", "nobody: no such model; the shipped models are cspdensenetb-ref-prn-bccd"),
        ("a.pt", "a.pt"),
    ],
)
def test_missing_models(model: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        YOLO(model)


def test_another_process_opens_the_files_of_a_model(model: YOLO, result: Results) -> None:
    content = pickle.dumps(model)
    assert len(content) < 10_000
    (found,) = pickle.loads(content)(IMAGE)
    np.testing.assert_array_equal(found.boxes.data, result.boxes.data)


def test_a_cfg_alone_is_for_training(model: YOLO) -> None:
    fresh = YOLO(REPOSITORY / "weights" / "scenes.cfg")
    with pytest.raises(InputError, match="has no weights yet"):
        fresh(IMAGE)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("nowhere.jpg", {}, "nowhere.jpg: no such image"),
        (np.zeros((768, 3)), {}, r"the array is float64 \(768, 3\), expected uint8 \(height, width\)"),
        (np.zeros((8, 8, 5), np.uint8), {}, "expected uint8"),
        (IMAGE, {"conf": 25}, "conf: cannot be 25, expected a number between 0 and 1"),
        (IMAGE, {"iou": -1}, "iou: cannot be -1"),
        (IMAGE, {"classes": ["dragon"]}, "classes: no class 'dragon', expected a name or 0 to 9"),
        (IMAGE, {"classes": 1000}, "classes: no class 1000"),
        (IMAGE, {"img_size": (1, 2, 3)}, "img_size: cannot be"),
        (IMAGE, {"batch": 0}, "batch: cannot be 0"),
        (IMAGE, {"resize": "cubic"}, "resize: cannot be 'cubic', expected darknet or opencv"),
        (cv2.imread("no.jpg"), {}, "image 0: is None, which cv2.imread returns"),
        ([], {}, "source: is an empty list"),
    ],
)
def test_wrong_input_is_one_sentence(source: object, options: dict[str, Any], message: str, model: YOLO) -> None:
    with pytest.raises(InputError, match=message):
        model(source, **options)


def test_unreadable_files_of_a_folder_are_logged(model: YOLO, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((9, 9, 3), np.uint8))
    (tmp_path / "b.png").write_bytes(b"no image")
    assert [Path(each.path).name for each in model(tmp_path)] == ["a.png"] and "b.png" in caplog.text


def test_train_and_validate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = YOLO(REPOSITORY / "cfg" / "cspdensenetb-ref-prn.cfg")
    options: dict[str, Any] = {"img_size": 96, "batch_size": 4, "subdivisions": 1, "workers": 0, "no_plots": True}
    folder = model.train(iterations=2, **options)
    assert folder == Path("runs/train/exp") and Path(model.weights or "").parent == folder / "weights"
    data = next(Path().rglob("scenes.data"))
    assert (
        model.task == "detect" and list(model.names.values()) == data.with_suffix(".names").read_text().split("\n")[:-1]
    )
    again = model.train(data, iterations=4, clear=True, **options)
    assert again == Path("runs/train/exp2")
    metrics = model.val(data, no_plots=True)
    assert metrics["images"] > 0
    with pytest.raises(InputError, match="there is no flag --learning-speed"):
        model.train(data, learning_speed=3)


@installed("onnx")
@installed("onnxruntime")
def test_export_finds_the_same(model: YOLO, result: Results, tmp_path: Path) -> None:
    (path,) = model.export("onnx", out=tmp_path / "out" / "small")
    exported = YOLO(path)
    (found,) = exported(IMAGE)
    assert path == tmp_path / "out" / "small.onnx" and exported.names == model.names
    np.testing.assert_allclose(found.boxes.conf, result.boxes.conf, atol=1e-4)
    with pytest.raises(InputError, match="no PyTorch module"):
        _ = exported.network


def test_a_shipped_model_is_exported_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (path,) = YOLO("scenes", img_size=96).export("onnx", img_size=96, no_check=True)
    assert path == Path("scenes.onnx") and path.is_file()


def test_network_is_a_torch_module(model: YOLO) -> None:
    network: Any = model.network
    features = network.outputs(torch.rand(1, 3, 64, 64), [3, 5])
    assert [each.shape[0] for each in features.values()] == [1, 1]
    assert sum(parameter.numel() for parameter in network.parameters()) > 1e5


def test_info_and_benchmark(model: YOLO, capsys: pytest.CaptureFixture[str]) -> None:
    facts = model.info()
    assert "conv" in capsys.readouterr().out and facts["layers"]
    (row,) = model.benchmark(["torch"], runs=1)
    assert row["backend"] == "torch" and row["milliseconds"] > 0


def test_classifier(tmp_path: Path) -> None:
    cfg = tmp_path / "c.cfg"
    cfg.write_text(
        "[net]\nwidth=16\nheight=16\nchannels=3\n[convolutional]\nfilters=6\nsize=3\nactivation=linear\n[avgpool]\n[softmax]\n"
    )
    save_weights(load(cfg), tmp_path / "c.weights")
    (found,) = YOLO(cfg, tmp_path / "c.weights")(IMAGE)
    assert len(found.boxes) == 0 and len(found) == 1 and found.probs is not None and len(found.probs) == 6
    assert found.probs.top5[0] == found.probs.top1 and found.probs.top1conf == pytest.approx(found.probs.data.max())
    assert [row["class"] for row in found.summary()] == found.probs.top5
    with pytest.raises(InputError, match="is a classifier"):
        found.save_crop(tmp_path)


def test_line_counts_of_the_comparison() -> None:
    """docs/api.md counts the lines in docs/api-compared.md, and ours never need more than the best alternative."""
    page = (REPOSITORY / "docs" / "api-compared.md").read_text()
    table = (REPOSITORY / "docs" / "api.md").read_text()
    columns = ("darknet.py", "OpenCV 4", "Ultralytics", "cspyolo")
    sections = page.split("\n## ")[1:]
    assert len(sections) == 10
    for section in sections:
        title = section.split("\n")[0].partition(". ")[2]
        counts = {}
        for block in section.split("```py\n")[1:]:
            name = section[: section.index("```py\n" + block)].rstrip().split("\n")[-1]
            counts[name] = len(block[: block.index("```")].strip().split("\n"))
        cells = " | ".join(str(counts.get(column, "–")) for column in columns)
        assert f"| {title} | {cells} |" in table
        assert counts["cspyolo"] == min(counts.values())

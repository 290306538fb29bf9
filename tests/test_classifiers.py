"""Evaluation of classifiers, by test.py and during training, on networks and images whose classes are known."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import detect
import export
from data.dataset import class_of_path
from data.evaluation_set import make_classification_set
from data.sources import open_data
from evaluation.metrics.accuracy import NO_CLASS, Accuracy, ranks
from inference.predictor import Classifier, Outputs, TenCropClassifier
from models.network import Network
from models.plan import make_plan
from models.weights import save_weights
from tests.test_test_script import script
from utils.cfg import parse
from utils.cli import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, run_script
from utils.errors import InputError

# The score of each class is the mean of a colour channel.
COLOURS = "[net]\nwidth=16\nheight=16\nchannels=3\n[avgpool]\n[softmax]\n"
BGR = {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0)}


def test_rank_of_the_true_class() -> None:
    probabilities = np.array([[0.1, 0.7, 0.2], [0.4, 0.2, 0.4], [0.4, 0.2, 0.4], [1, 0, 0], [np.nan, 1, 0]])
    class_ids = np.array([2, 0, 2, NO_CLASS, 1])
    assert ranks(probabilities, class_ids).tolist() == [1, 0, 1, 3, 3]


def test_accuracy_of_all_and_of_each_class() -> None:
    probabilities = np.eye(3)[[0, 1, 2, 0]] + [0.2, 0.1, 0]
    found = Accuracy.of(probabilities, np.array([0, 1, 0, NO_CLASS]), ("a", "b", "c"), k=2)
    assert found.top(1) == 0.5 and found.top(2) == 0.75
    assert found.matrix().tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert [line.split() for line in found.table().splitlines()] == [
        ["class", "images", "top", "1", "top", "2"],
        ["all", "4", "0.5000", "0.7500"],
        ["a", "2", "0.5000", "1.0000"],
        ["b", "1", "1.0000", "1.0000"],
    ]
    assert found.to_json()["classes"] == {"a": {"images": 2, "top1": 0.5}, "b": {"images": 1, "top1": 1.0}}
    nothing = Accuracy.of(np.zeros((0, 2)), np.zeros(0, np.int64), ("a", "b"), k=5)
    assert nothing.top(1) == 0.0 and nothing.k == 2 and "all" in nothing.table()


def test_the_first_label_in_a_path_counts() -> None:
    assert [class_of_path(path, ("cat", "catfish", "dog")) for path in ("x/catfish/1", "a/dog", "b")] == [0, 2, -1]


def test_a_class_tree_uses_its_leaves_and_products_from_the_top(tmp_path: Path) -> None:
    (tmp_path / "a.tree").write_text("animal -1\nthing -1\ncat 0\ndog 0\n")
    text = f"[net]\nwidth=1\nheight=1\nchannels=4\n[softmax]\ntree={tmp_path / 'a.tree'}\n"
    classifier = Classifier(Network(make_plan(parse(text))).eval())
    images = torch.tensor([0.0, 0.0, 0.0, 1.0]).log().nan_to_num(neginf=-50).view(1, 4, 1, 1)
    images[0, 0] = images[0, 1] = 0.0
    with torch.inference_mode():
        outputs = classifier.forward(images)
        (found,) = classifier.postprocess(outputs)
    np.testing.assert_allclose(found, [0.5, 0.5, 0.0, 0.5], atol=1e-6)
    np.testing.assert_allclose(classifier.only_leaves(found), [0.0, 0.5, 0.0, 0.5], atol=1e-6)


@pytest.fixture
def coloured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six images: the middle has the colour of the class, the sides, which a classifier does not see, another one."""
    monkeypatch.chdir(tmp_path)
    names = list(BGR)
    for number in range(6):
        image = np.full((20, 60, 3), BGR[names[(number + 1) % 3]], np.uint8)
        image[:, 20:40] = BGR[names[number % 3]]
        cv2.imwrite(f"n{number % 3}_{number}.png", image)
    (tmp_path / "list.txt").write_text("".join(f"{path.name}\n" for path in sorted(tmp_path.glob("*.png"))))
    (tmp_path / "my.names").write_text("".join(f"{name}\n" for name in names))
    (tmp_path / "my.labels").write_text("n0\nn1\nn2\n")
    (tmp_path / "my.data").write_text("train=list.txt\nvalid=list.txt\nnames=my.names\nlabels=my.labels\ntop=2\n")
    (tmp_path / "my.cfg").write_text(COLOURS)
    return tmp_path


def measured(*flags: str) -> int:
    return run_script(script.main, ["--cfg", "my.cfg", "--data", "my.data", *flags])


def test_test_script_measures_a_classifier(coloured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (coloured / "list.txt").write_text((coloured / "list.txt").read_text() + "n0_odd.png\n")
    cv2.imwrite("n0_odd.png", np.full((30, 16, 3), BGR["blue"], np.uint8))
    assert measured() == EXIT_OK
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines()[1:5]] == [
        ["all", "7", "0.8571", "1.0000"],
        ["red", "3", "0.6667", "1.0000"],
        ["green", "2", "1.0000", "1.0000"],
        ["blue", "2", "1.0000", "1.0000"],
    ]
    folder = coloured / "runs" / "test" / "exp"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["images"] == 7 and metrics["top1"] == pytest.approx(6 / 7)
    assert (folder / "confusion_matrix.png").exists()
    assert "n0_odd.png\tblue\t" in (folder / "predictions.tsv").read_text()
    assert measured("--print", "darknet", "--augment") == EXIT_OK
    assert "6: top 1: 0.857143, top 2: 1.000000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("my.labels", "n0\nn1\n", "2 labels and 3 names"),
        ("my.labels", "x\ny\nz\n", "no path of split 'val' contains one of the 3 labels"),
        ("my.cfg", COLOURS.replace("channels=3", "channels=1"), "has 3 names, but my.cfg has classes=1"),
    ],
)
def test_conflicting_options(
    coloured: Path, capsys: pytest.CaptureFixture[str], file: str, text: str, said: str
) -> None:
    (coloured / file).write_text(text)
    assert measured() == EXIT_BAD_INPUT
    assert said in capsys.readouterr().err


def test_paths_without_a_label_count_as_wrong(coloured: Path, caplog: pytest.LogCaptureFixture) -> None:
    cv2.imwrite("other.png", np.zeros((16, 16, 3), np.uint8))
    (coloured / "list.txt").write_text("n0_0.png\nother.png\n")
    images = make_classification_set(open_data("my.data", "val"), "val", 3, "my.cfg")
    assert images.class_ids.tolist() == [0, -1] and images.top == 2
    assert "1 of 2 paths contain no label" in caplog.text


def test_labels_replace_missing_names(coloured: Path) -> None:
    (coloured / "my.data").write_text("valid=list.txt\nlabels=my.labels\n")
    data = open_data("my.data", "val")
    assert data.names == data.labels_in_paths == ("n0", "n1", "n2")


def _crops_as_in_c(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """The ten crops of validate_classifier_10, pixel by pixel; image: (height + 32, width + 32, channels)."""
    crops = []
    for mirrored in (image, image[:, ::-1]):
        for dx, dy in ((-32, -32), (32, -32), (0, 0), (-32, 32), (32, 32)):
            crop = np.zeros((height, width, 3), np.float32)
            for j, i in np.ndindex(height, width):
                crop[j, i] = mirrored[min(max(j + dy, 0), height + 31), min(max(i + dx, 0), width + 31)]
            crops.append(crop)
    return np.stack(crops)


def test_ten_crops_are_the_originals() -> None:
    network = Network(make_plan(parse("[net]\nwidth=16\nheight=12\nchannels=3\n[avgpool]\n[softmax]\n"))).eval()
    model, rng = TenCropClassifier(network), np.random.default_rng(0)
    image = rng.integers(0, 256, (44, 48, 3), dtype=np.uint8)  # the size that images are stretched to
    means = _crops_as_in_c(image / np.float32(255), 16, 12).mean((1, 2))
    wanted = (np.exp(means) / np.exp(means).sum(1, keepdims=True)).mean(0)
    (found,) = model.predict([image])
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert not np.allclose(found, Classifier(network).predict([image])[0], atol=1e-4)
    assert not np.allclose(model.predict([image[:, ::-1]])[0], model.predict([image[::-1]])[0], atol=1e-5)


def test_ten_crops_change_the_accuracy(coloured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Most of the ten crops see the sides, which do not have the colour of the class."""
    assert measured("--ten-crop", "--resize", "darknet") == EXIT_OK
    metrics = json.loads((coloured / "runs" / "test" / "exp" / "metrics.json").read_text())
    assert metrics["ten_crop"] and metrics["images"] == 6 and metrics["top1"] < 1
    assert measured() == EXIT_OK
    assert json.loads((coloured / "runs" / "test" / "exp2" / "metrics.json").read_text())["top1"] == 1
    capsys.readouterr()
    for flags, said in ((["--augment"], "cannot be combined"), (["--task", "speed"], "no effect on --task speed")):
        assert measured("--ten-crop", *flags) == EXIT_BAD_INPUT
        assert said in capsys.readouterr().err


def test_images_that_cannot_be_read_are_left_out_and_fail_the_run(coloured: Path) -> None:
    (coloured / "n1_1.png").write_bytes(b"no image")
    assert measured() == 1
    metrics = json.loads((coloured / "runs" / "test" / "exp" / "metrics.json").read_text())
    assert metrics["images"] == 5 and list(metrics["unreadable"]) == ["n1_1.png"]


def test_a_classifier_without_classes_is_rejected() -> None:
    text = "[net]\nwidth=8\nheight=8\nchannels=3\n[convolutional]\nfilters=2\n"
    with pytest.raises(InputError, match="no layer with a loss"):
        Classifier(Network(make_plan(parse(text))))


def named(*flags: str) -> int:
    save_weights(Network(make_plan(parse(COLOURS))), "my.weights")
    return run_script(detect.main, ["--cfg", "my.cfg", "--weights", "my.weights", "--source", "list.txt", *flags])


def test_detect_script_classifies(
    coloured: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert named("--names", "my.names") == EXIT_OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("n0_0.png: red 0.576, green 0.212, blue 0.212, ") and "n2_5.png: blue 0.576" in lines[5]
    assert lines[6] == "6 images classified"
    rows = list(csv.DictReader((coloured / "runs" / "detect" / "exp" / "results.csv").open()))
    assert len(rows) == 18
    assert rows[0] == {"file": "n0_0.png", "frame": "0", "rank": "1", "class": "red", "probability": "0.576117"}
    assert named("--print", "darknet", "--no-save") == EXIT_OK
    assert capsys.readouterr().out.splitlines()[1] == "class 0: 0.576117"
    assert caplog.text.count("no class names") == 1 and "called class 0, ..., class 2" in caplog.text
    assert [path.name for path in (coloured / "runs" / "detect").iterdir()] == ["exp"], "nothing saved, no folder"


@pytest.mark.parametrize("flags", [["--save-json"], ["--save-txt"], ["--out", "a.jpg"], ["--conf-thres", "0.5"]])
def test_flags_about_boxes_are_refused(coloured: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert named(*flags) == EXIT_BAD_INPUT
    assert f"{flags[0]}: my.cfg is a classifier" in capsys.readouterr().err


def test_an_exported_classifier_gives_the_same_result(coloured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    assert named() == EXIT_OK
    own = [line.rsplit(",", 1)[0] for line in capsys.readouterr().out.splitlines()[:6]]
    assert run_script(export.main, ["--cfg", "my.cfg", "--weights", "my.weights", "--out", "m"]) == EXIT_OK
    capsys.readouterr()
    assert run_script(detect.main, ["--weights", "m.onnx", "--source", "list.txt"]) == EXIT_OK
    assert [line.rsplit(",", 1)[0] for line in capsys.readouterr().out.splitlines()[:6]] == own
    assert run_script(script.main, ["--weights", "m.onnx", "--data", "my.data"]) == EXIT_OK
    assert "1.0000" in capsys.readouterr().out


def test_detect_script_continues_after_an_unreadable_image(coloured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (coloured / "n1_1.png").write_bytes(b"no image")
    assert named() == EXIT_FAILED
    said = capsys.readouterr()
    assert "5 images classified; 1 could not be read" in said.out and "skipped: n1_1.png" in said.err


def test_ctrl_c_keeps_the_results_so_far(coloured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, calls = Classifier.forward, []

    def interrupted(*arguments: Any, **options: Any) -> Outputs:
        calls.append(arguments)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return forward(*arguments, **options)

    monkeypatch.setattr(Classifier, "forward", interrupted)
    assert named("--names", "my.names") == EXIT_INTERRUPTED
    rows = list(csv.DictReader((coloured / "runs" / "detect" / "exp" / "results.csv").open()))
    assert [row["class"] for row in rows if row["rank"] == "1"] == ["red", "red"]

"""test.py as run by a user, with a small network whose boxes are known."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import re
import shutil
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from darknet_cli.measure import _write_voc
from data.annotations import Dataset
from data.evaluation_set import make_evaluation_set
from data.formats.darknet import TextLabels
from evaluation import doctor
from evaluation.metrics.voc import write_results
from inference.detector import Detector
from models.load import load
from models.weights import save_weights
from tests.paths import REPOSITORY
from utils.cli import run_script
from utils.detections import Detections

# One box of class 1, score 0.98, in every cell of 4 x 4; boxes of 16 x 16 network pixels do not overlap.
CFG = """[net]
width=64
height=64
channels=3
[convolutional]
filters=2
size=16
stride=16
activation=leaky
[convolutional]
filters=7
size=1
activation=linear
[yolo]
mask=0
num=1
anchors=16,16
classes=2
"""
CELLS = [(x, y) for y in range(4) for x in range(4)]


def _load_script() -> ModuleType:
    """Load test.py by path, because `test` is also a package in the standard library."""
    spec = importlib.util.spec_from_file_location("test_script", REPOSITORY / "test.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = _load_script()


class Case:
    """A folder with a network and a data set of three images: with all cells labelled, half of them, and none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "a.cfg").write_text(CFG)
        network = load(folder / "a.cfg")
        for _, item in network.stored():
            item.tensor.data.zero_()
        network.layers[1].biases.data[:] = network.layers[1].biases.new_tensor([0, 0, 0, 0, 5, -9, 5])
        save_weights(network, folder / "a.weights")
        self.images = [folder / f"{name}.png" for name in ("full", "half", "empty")]
        for path, count in zip(self.images, (16, 8, 0), strict=True):
            cv2.imwrite(str(path), np.full((80, 160, 3), 90, np.uint8))
            rows = [f"1 {(x + 0.5) / 4} {(y + 0.5) / 4} .25 .25" for x, y in CELLS[:count]]
            path.with_suffix(".txt").write_text("\n".join(rows))
        (folder / "list.txt").write_text("\n".join(map(str, self.images)))
        (folder / "a.names").write_text("cat\ndog\n")
        (folder / "a.data").write_text("valid=list.txt\nnames=a.names\n")

    def run(self, *arguments: str, data: str = "a.data", weights: str = "a.weights") -> int:
        flags = ["--cfg", str(self.folder / "a.cfg"), "--weights", str(self.folder / weights), "--device", "cpu"]
        flags += ["--data", str(self.folder / data), "--project", str(self.folder / "runs"), "--workers", "1"]
        return run_script(script.main, [*flags, *arguments])

    def json(self, name: str, run: str = "exp") -> dict:
        return json.loads((self.folder / "runs" / run / name).read_text())


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_all_numbers(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert case.run("--no-plots", "--save-json", "--save-txt", "--save-conf") == 0
    metrics = case.json("metrics.json")
    darknet = metrics["darknet"]
    assert (metrics["images"], metrics["labels"]) == (3, 24)
    assert (darknet["tp"], darknet["fp"], darknet["fn"]) == (24, 24, 0)
    assert darknet["average_iou"] == pytest.approx(0.5, abs=1e-3)
    dog = metrics["classes"][1]
    assert (dog["images"], dog["labels"], dog["precision"], dog["recall"]) == (2, 24, 0.5, 1.0)
    assert metrics["classes"][0]["coco_ap"] is None and metrics["classes"][0]["darknet_ap_area"] == 0
    assert metrics["complete"] and metrics["unreadable"] == {} and metrics["input"] == [64, 64]
    rows = json.loads((case.folder / "runs" / "exp" / "results.json").read_text())
    assert len(rows) == 48 and {row["image_id"] for row in rows} == {1, 2, 3}
    assert {row["category_id"] for row in rows} == {2}
    assert sorted(row["bbox"] for row in rows)[0] == pytest.approx([0, 0, 40, 20], abs=0.01)
    text = (case.folder / "runs" / "exp" / "labels" / "full.txt").read_text().split("\n")
    assert len(text) == 17 and len(text[0].split()) == 6
    out = capsys.readouterr().out
    assert "val: 3 images (3 readable, 1 background), 24 labels, 1 of 2 classes" in out
    assert "COCO: AP " in out and re.search(r"Speed: .* per image of 64x64 with PyTorch, fp32\n", out)
    assert metrics["engine"] == "PyTorch, fp32"


def test_label_files_of_images_of_one_name(case: Case) -> None:
    other = case.folder / "other"
    other.mkdir()
    for path in (case.images[2], case.images[2].with_suffix(".txt")):
        shutil.copy(path, other / path.name.replace("empty", "full"))
    (case.folder / "list.txt").write_text(f"{case.images[0]}\n{other / 'full.png'}\n")
    assert case.run("--no-plots", "--save-txt") == 0
    assert sorted(path.name for path in (case.folder / "runs" / "exp" / "labels").iterdir()) == [
        "full.txt",
        "full_2.txt",
    ]


def test_a_set_without_annotations_gives_results_to_submit(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    paths = sorted(path for path in case.folder.rglob("*") if path.suffix in {".jpg", ".png"})[:2]
    images = [{"id": 40 + i, "file_name": str(path), "width": 9, "height": 9} for i, path in enumerate(paths)]
    categories = [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}]
    (case.folder / "info.json").write_text(json.dumps({"images": images, "categories": categories}))
    assert case.run("--no-plots", data="info.json") == 2
    assert "has no annotations; add --save-json" in capsys.readouterr().err
    assert case.run("--no-plots", "--save-json", data="info.json") == 0
    (results,) = case.folder.rglob("results.json")
    assert {(row["image_id"], row["category_id"]) for row in json.loads(results.read_text())} == {(40, 7), (41, 7)}


@pytest.mark.parametrize("suffix", [".pt", ".onnx"])
def test_files_with_their_cfg_inside(case: Case, suffix: str) -> None:
    """They need no --cfg; an ONNX model with batch size 2 processes the three images in two parts."""
    source = ["--cfg", str(case.folder / "a.cfg"), "--weights", str(case.folder / "a.weights")]
    out = str(case.folder / f"a{suffix}")
    if suffix == ".pt":
        assert _script("convert").main(["weights", *source, "--out", out]) == 0
    else:
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
        assert _script("export").main([*source, "--batch-size", "2"]) == 0
    flags = ["--data", str(case.folder / "a.data"), "--project", str(case.folder / "runs"), "--no-plots"]
    assert run_script(script.main, ["--weights", out, *flags, "--device", "cpu"]) == 0
    darknet = case.json("metrics.json")["darknet"]
    assert (darknet["tp"], darknet["fp"], darknet["fn"]) == (24, 24, 0)


def _script(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_results_json_gives_the_same_twelve_numbers_in_other_tools(case: Case) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    truth = case.folder / "truth.json"
    assert run_script(_convert().main, ["labels", "--from", str(case.folder / "a.data"), "--to", str(truth)]) == 0
    assert case.run("--no-plots", "--save-json", data="truth.json") == 0
    with contextlib.redirect_stdout(io.StringIO()):
        truths = coco.COCO(str(truth))
        found = truths.loadRes(str(case.folder / "runs" / "exp" / "results.json"))
        evaluation = cocoeval.COCOeval(truths, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ours = [-1 if value is None else value for value in case.json("metrics.json")["coco"].values()]
    np.testing.assert_allclose(ours, evaluation.stats, rtol=0, atol=1e-12)


def _convert() -> ModuleType:
    import convert

    return convert


def test_plots_and_worst_images(case: Case) -> None:
    pytest.importorskip("matplotlib")
    case.images[0].with_suffix(".txt").write_text("1 .5 .5 .9 .9\n0 .1 .1 .2 .2\n")
    assert case.run() == 0
    folder = case.folder / "runs" / "exp"
    for name in ("PR_curve", "F1_curve", "P_curve", "R_curve", "confusion_matrix", "labels_val"):
        assert (folder / f"{name}.png").stat().st_size > 5000
    (sheet,) = (folder / "worst").iterdir()
    assert sheet.name == "1_full.jpg"
    width = cv2.imread(str(sheet)).shape[1]
    assert width == 2 * 1280 + 8


def test_darknet_wording(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert case.run("--no-plots", "--print", "darknet", "--points", "11") == 0
    out = capsys.readouterr().out
    for line in (
        " detections_count = 48, unique_truth_count = 24  ",
        "class_id = 0, name = cat, ap = 0.00%   \t (TP = 0, FP = 0) ",
        " for conf_thresh = 0.25, precision = 0.50, recall = 1.00, F1-score = 0.67 ",
        " for conf_thresh = 0.25, TP = 24, FP = 24, FN = 0, average IoU = 50.00 % ",
        " IoU threshold = 50 %, used 11 Recall-points ",
    ):
        assert f"\n{line}\n" in out
    assert " mean average precision (mAP@0.50) = 0." in out


def test_coco_results_are_clipped_and_suppressed_as_by_detector_valid(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neighbouring boxes of 48 x 48 network pixels overlap by 0.5 and extend beyond the border."""
    (case.folder / "a.cfg").write_text(CFG.replace("anchors=16,16", "anchors=48,48"))
    counts = []
    for flags in ([], ["--iou-thres", "0.45"], ["--iou-thres", "0.6"]):
        assert case.run("--no-plots", "--save-json", "--exist-ok", "--print", "darknet", *flags) == 0
        rows = json.loads((case.folder / "runs" / "exp" / "results.json").read_text())
        for x, y, width, height in (row["bbox"] for row in rows):
            assert x >= 0 and y >= 0 and x + width <= 160.001 and y + height <= 80.001
        counted = re.search(r"detections_count = (\d+)", capsys.readouterr().out)
        assert counted is not None
        counts.append((int(counted[1]), len(rows)))
    suppressed = counts[1][0]
    assert suppressed < 48 and counts == [(suppressed, 48), (suppressed, suppressed), (48, 48)]


def test_matching_iou_has_its_own_flag(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    for path in case.images[:2]:
        path.with_suffix(".txt").write_text(path.with_suffix(".txt").read_text().replace(".25 .25", ".25 .2"))
    for value, hits in (("0.75", 24), ("0.85", 0)):
        assert case.run("--no-plots", "--exist-ok", "--print", "darknet", "--match-iou", value) == 0
        darknet = case.json("metrics.json")["darknet"]
        assert (darknet["tp"], darknet["iou_thresh"]) == (hits, float(value))
        assert darknet["map_area"] == pytest.approx(0.5 if hits else 0)
        out = capsys.readouterr().out
        assert f"mean average precision (mAP@{value})" in out
        assert f" IoU threshold = {100 * float(value):.0f} %" in out


@pytest.mark.parametrize(
    ("flags", "shown", "hits"),
    [((), "0.25", 24), (("--pr-conf", "0.99"), "0.99", 0), (("--conf-thres", "0.4"), "0.40", 24)],
)
def test_confidence_of_precision_and_recall(
    flags: tuple[str, ...], shown: str, hits: int, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    assert case.run("--no-plots", "--print", "darknet", *flags) == 0
    assert f" for conf_thresh = {shown}, TP = {hits}, FP = {hits}, FN = {24 - hits}," in capsys.readouterr().out
    assert case.json("metrics.json")["darknet"]["map_area"] == pytest.approx(0.5)


@pytest.mark.parametrize("flags", [["--augment"], ["--letter-box", "1"], ["--resize", "opencv"], ["--single-cls"]])
def test_variants_run(case: Case, flags: list[str]) -> None:
    assert case.run("--no-plots", *flags) == 0
    metrics = case.json("metrics.json")
    expected = {"--single-cls": 1}.get(flags[0], 2)
    assert len(metrics["classes"]) == expected
    if flags[0] in ("--augment", "--single-cls", "--resize"):
        assert metrics["darknet"]["tp"] == 24


def test_doctor_only(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    path = case.images[1].with_suffix(".txt")
    path.write_text("7 .5 .5 .1 .1\n1 .5 .5 0 .1\nbroken\n")
    assert run_script(script.main, ["--task", "doctor", "--data", str(case.folder / "a.data"), "--no-plots",
                                    "--project", str(case.folder / "runs")]) == 0  # fmt: skip
    out = capsys.readouterr().out
    for line, text in ((1, "class id 7"), (2, "no area"), (3, "found 1 values")):
        assert f"{path}:{line}: " in out and text in out
    assert (case.folder / "runs" / "exp" / "doctor_val.txt").read_text().count(str(path)) == 3


def test_anchors(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """Boxes of two shapes, .25 x .25 and .5 x .2 of the image, result in exactly these anchors."""
    (case.folder / "a.data").write_text("train=list.txt\nvalid=list.txt\nnames=a.names\n")
    case.images[1].with_suffix(".txt").write_text("0 .5 .5 .5 .2\n")
    flags = ["--task", "anchors", "--data", str(case.folder / "a.data"), "--count", "2"]
    assert run_script(script.main, [*flags, "--img-size", "400"]) == 0
    out = capsys.readouterr().out
    assert "\nanchors = 200,80, 100,100\n" in out or "\nanchors = 100,100, 200,80\n" in out
    assert "mean IoU 100.00%, best possible recall 100.00%" in out
    assert run_script(script.main, flags) == 2
    assert "requires --img-size or --cfg" in capsys.readouterr().err
    assert run_script(script.main, [*flags[:-2], "--cfg", str(case.folder / "a.cfg")]) == 0
    out = capsys.readouterr().out
    assert "1 anchor for an input of 64x64" in out and "keep those of the cfg" in out
    assert not (case.folder / "runs").exists()


def test_without_matplotlib_one_message(
    case: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(doctor, "is_installed", lambda module: False)
    doctor._warn_no_plots.cache_clear()
    assert case.run() == 0
    assert caplog.text.count("no plots") == 1 and not list((case.folder / "runs").rglob("*.png"))


def test_result_files_for_pascal_voc(case: Case) -> None:
    assert case.run("--no-plots", "--save-voc") == 0
    folder = case.folder / "runs" / "exp" / "results"
    assert (folder / "comp4_det_test_cat.txt").read_text() == ""
    rows = [line.split() for line in (folder / "comp4_det_test_dog.txt").read_text().splitlines()]
    assert [row[0] for row in rows] == ["full"] * 16 + ["half"] * 16 + ["empty"] * 16
    boxes = np.array([row[2:] for row in rows[:16]], float)
    assert boxes.min() == 1 and boxes.max(axis=0).tolist() == pytest.approx([121, 61, 160, 80], abs=1e-3)
    assert {len(row) for row in rows} == {6} and float(rows[0][1]) == pytest.approx(0.98, abs=0.01)


def test_study(case: Case) -> None:
    pytest.importorskip("matplotlib")
    assert case.run("--task", "study", "--img-size", "64", "96", "--conf-thres", "0.01", "0.3") == 0
    rows = json.loads((case.folder / "runs" / "exp" / "study.json").read_text())
    assert [(row["size"], row["conf_thres"]) for row in rows] == [(64, 0.01), (64, 0.3), (96, 0.01), (96, 0.3)]
    assert rows[0]["ap50"] > rows[2]["ap50"] and all(row["ms"] > 0 for row in rows)
    assert {row["engine"] for row in rows} == {"PyTorch, fp32"}
    assert (case.folder / "runs" / "exp" / "study.png").exists()


def test_speed_needs_no_labels(case: Case) -> None:
    for path in case.images:
        path.with_suffix(".txt").unlink()
    assert case.run("--task", "speed") == 0
    facts = case.json("speed.json")
    assert facts["images"] == 3 and facts["speed_ms"]["inference"] > 0 and facts["engine"] == "PyTorch, fp32"


def test_run_folders_count_up(case: Case) -> None:
    assert [case.run("--no-plots") for _ in range(2)] == [0, 0]
    before = case.json("metrics.json", "exp2")
    assert before["images"] == 3
    assert case.run("--no-plots", "--exist-ok", "--conf-thres", "0.99") == 0
    assert case.json("metrics.json")["darknet"]["tp"] == 0


def _no_images(case: Case) -> None:
    (case.folder / "list.txt").write_text("\n")


def _no_labels(case: Case) -> None:
    for path in case.images:
        path.with_suffix(".txt").unlink()


def _three_names(case: Case) -> None:
    (case.folder / "a.names").write_text("cat\ndog\nfox\n")


def _no_boxes(case: Case) -> None:
    (case.folder / "a.cfg").write_text(CFG[: CFG.index("[yolo]")])


BAD = {
    "no images": (_no_images, [], "no images in split 'val'"),
    "no labels": (_no_labels, [], "no usable labels in split"),
    "names and cfg disagree": (_three_names, [], "has 3 names, but"),
    "cfg without boxes": (_no_boxes, [], "no detection head"),
    "split that is not there": (None, ["--split", "nowhere"], "no split 'nowhere'"),
    "three sizes": (None, ["--img-size", "1", "2", "3"], "--img-size: found 3 numbers"),
    "several confidences": (None, ["--conf-thres", ".1", ".2"], "--conf-thres: found 2 values"),
    "precision below the lowest score": (None, ["--conf-thres", ".5", "--pr-conf", ".3"], "--pr-conf 0.3: is below"),
    "half in PyTorch on a cpu": (None, ["--half", "--backend", "torch"], "--half"),
    "no such weights": (None, ["--weights", "nowhere.weights"], "nowhere.weights"),
    "no such data": (None, ["--data", "nowhere.data"], "nowhere.data: no such dataset"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, flags, message = BAD[name]
    if spoil:
        spoil(case)
    assert case.run(*flags) == 2
    assert message in capsys.readouterr().err
    assert not (case.folder / "runs").exists()


@pytest.mark.parametrize("flags", [["--conf-thres", "2"], ["--batch-size", "0"], ["--task", "val", "--cfg"]])
def test_bad_flags(flags: list[str], case: Case) -> None:
    assert case.run(*flags) == 2


def test_results_file_that_is_a_folder(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    (case.folder / "runs" / "exp" / "metrics.json").mkdir(parents=True)
    assert case.run("--no-plots", "--exist-ok") == 2
    assert "metrics.json: is a folder, expected a file name" in capsys.readouterr().err


def test_image_deleted_half_way(
    case: Case, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check = doctor.check_dataset

    def check_then_delete(*arguments: Any, **more: Any) -> object:
        found = check(*arguments, **more)
        case.images[1].unlink()
        return found

    monkeypatch.setattr(doctor, "check_dataset", check_then_delete)
    assert case.run("--no-plots") == 1
    error = capsys.readouterr().err
    assert "1 of 3 images could not be read" in error and "half.png" in error
    metrics = case.json("metrics.json")
    assert metrics["images"] == 2 and not metrics["complete"] and list(metrics["unreadable"]) == [str(case.images[1])]
    assert metrics["darknet"]["tp"] == 16


def test_interrupted(case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    postprocess, calls = Detector.postprocess, iter(range(5))

    def interrupted(*arguments: Any, **options: Any) -> object:
        if (
            next(calls, None) is None
        ):  # at the second image: each is processed in two ways, the first one twice for warm-up
            signal.raise_signal(signal.SIGINT)
        return postprocess(*arguments, **options)

    monkeypatch.setattr(Detector, "postprocess", interrupted)
    assert case.run("--no-plots", "--batch-size", "1") == 130
    assert "2 of 3 images were measured" in capsys.readouterr().err
    assert case.json("metrics.json")["images"] == 2


def test_broken_label_is_skipped(case: Case) -> None:
    path = case.images[0].with_suffix(".txt")
    path.write_text(path.read_text() + "\n1 .5 .5 oops .1\n9 .5 .5 .1 .1\n")
    assert case.run("--no-plots") == 0
    metrics = case.json("metrics.json")
    assert metrics["labels"] == 24 and metrics["darknet"]["tp"] == 24
    assert metrics["findings"] == {"malformed label": 1, "class beyond names": 1}


def test_result_files_of_awkward_class_names(tmp_path: Path) -> None:
    """Classes with the same name share a file, and a slash creates no folder; `detector valid` uses the same writer."""
    boxes = np.array([[-5, 2, 30, 90], [1.5, 2.5, 7.25, 8]], np.float32)
    found = Detections(xyxy=boxes, scores=np.array([0.5, 0.25], np.float32), class_ids=np.array([0, 2]))
    for prefix, write in (("a_", write_results), ("b_", darknet_results)):
        write(tmp_path, [(Path("x/im.1.jpg"), (20, 40), found)], ("t/v", "t/v", "dog"), prefix)
        assert (tmp_path / f"{prefix}t_v.txt").read_text() == "im 0.500000 1.000000 3.000000 20.000000 40.000000\n"
        assert (tmp_path / f"{prefix}dog.txt").read_text() == "im 0.250000 2.500000 3.500000 8.250000 9.000000\n"


def darknet_results(folder: Path, images: list[tuple], names: tuple[str, ...], prefix: str) -> None:
    _write_voc(folder, prefix, [(0, *image) for image in images], names)


def test_image_ids_from_names_are_unique_and_stable() -> None:
    """With COCO's classes, ids are the numbers in the names, unless two listed images, read or not, share a number."""
    names = ("person", *map(str, range(78)), "toothbrush")

    def ids(*paths: str) -> list[int]:
        images = tuple(map(Path, paths))
        dataset = Dataset(source=Path(), names=names, splits={"val": images}, read=TextLabels())
        return make_evaluation_set(dataset, "val", 80, "a.cfg").image_ids([1])

    assert ids("a/8.jpg", "a/COCO_val2014_012.jpg") == [12]
    assert ids("a/12.jpg", "a/COCO_val2014_012.jpg") == ids("a/x.jpg", "a/12.jpg") == [2]


def test_coco_ids() -> None:
    from data.formats.coco import COCO_IDS, image_id_of

    assert len(COCO_IDS) == 80 and (COCO_IDS[0], COCO_IDS[11], COCO_IDS[79]) == (1, 13, 90)
    assert image_id_of(Path("COCO_val2014_000000000042.jpg")) == image_id_of(Path("000000000042.jpg")) == 42
    assert image_id_of(Path("dog.jpg")) is None

"""--recipe modern: the values that it chooses, flags that override it, its parts, and advice based on the data."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import train
from data.augment.geometry import random_symmetry
from data.doctor import check_dataset
from data.sources import open_data
from models.load import load
from models.network import Network
from models.plan import make_plan
from tests.small_set import YOLO, two_boxes, write_set
from tests.test_train_script import stop_at
from training.checkpoint import load_checkpoint
from training.optimizer import RunningAverage
from training.prepare import open_splits
from training.recipe import advice
from utils.cfg import parse
from utils.cli import EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_OK, run_script

NET = "[net]\nwidth=48\nheight=40\nchannels=3\nbatch=4\nsubdivisions=2\nlearning_rate=0.01\nmax_batches=6\nburn_in=2\n"
LAYERS = """[convolutional]
batch_normalize=1
filters=6
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters=14
size=1
stride=4
activation=linear
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a cfg and a data set of six images in two classes."""
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path, ("cat", "dog"), lambda number: two_boxes(number, 2))
    Path("my.cfg").write_text(NET + LAYERS + YOLO)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def command(*flags: str) -> int:
    base = ["--cfg", "my.cfg", "--data", "my.data", "--workers", "0", "--no-plots", "--no-val"]
    return run_script(train.main, [*base, *flags])


def test_the_plan_is_printed_and_nothing_is_trained(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--recipe", "modern", "--plan", "--epochs", "400") == EXIT_OK
    text = capsys.readouterr().out
    assert "  max_batches=300\n" in text and "  burn_in=60\n" in text  # 400 epochs of 6 images in batches of 8
    assert "  cos_lr: true\n" in text and "  iou_loss=ciou\n" in text and "  anchors=8,8" not in text
    assert "  jitter=0.1\n" in text and "2,400 images seen, each of 6 images 400 times" in text
    assert not (folder / "runs").exists()


def test_flags_override_the_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--batch-size", "2", "--iterations", "50", "--no-cos-lr", "--average", "0", "--anchors", "3")
    assert (
        command("--recipe", "modern", "--plan", *flags, "--set", "iou_loss=giou", "burn_in=7", "jitter=.2") == EXIT_OK
    )
    text = capsys.readouterr().out
    for line in (
        "batch=2",
        "max_batches=50",
        "burn_in=7",
        "iou_loss=giou",
        "jitter=.2",
        "num=3",
        "cos_lr: false",
        "average: 0.0",
    ):
        assert f"  {line}\n" in text
    Path("my.cfg").write_text(NET + "ema_alpha=0.99\n" + LAYERS + YOLO)
    assert command("--average", "0.9") == EXIT_BAD_INPUT
    assert command("--recipe", "modern", "--plan") == EXIT_OK
    assert "  max_batches=3000\n" in capsys.readouterr().out  # the minimum number of images, in batches of 8


def test_without_the_recipe_nothing_changes(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--plan") == EXIT_OK
    text = capsys.readouterr().out
    assert "learning_rate=0.01\n" in text and "iou_loss" not in text and "average" not in text
    assert "anchors=8,8,16,16\n" in text


def test_the_recipe_is_recorded_and_resumes_bit_for_bit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ("--recipe", "modern", "--iterations", "6", "--batch-size", "2", "--dihedral")
    assert command("--name", "whole", *flags) == EXIT_OK
    with monkeypatch.context() as patch:
        stop_at(patch, 3, signal.SIGTERM)
        assert command("--name", "parts", *flags) == EXIT_INTERRUPTED
    runs = folder / "runs" / "train"
    assert run_script(train.main, ["--resume", str(runs / "parts/weights/last.pt"), "--workers", "0"]) == EXIT_OK
    whole, parts = (runs / name / "weights" / "my_final.weights" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    record = (runs / "whole" / "opt.yaml").read_text()
    assert '  recipe: "modern"\n' in record and "  average: 0.9\n" in record and '"iou_loss=ciou"' in record
    checkpoint = load_checkpoint(runs / "whole" / "weights" / "last.pt")
    saved = load(runs / "whole" / "my.cfg", whole).state_dict()["layers.0.weights"]
    assert torch.equal(saved, checkpoint.model["layers.0.weights"])
    assert not torch.equal(saved, checkpoint.trained["layers.0.weights"])


def test_a_network_without_anchors_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    classifier = LAYERS.replace("filters=14", "filters=2") + "[avgpool]\n[softmax]\n"
    Path("my.cfg").write_text(NET + classifier)
    assert command("--recipe", "modern") == EXIT_BAD_INPUT
    assert "my.cfg: --recipe modern works only for detectors with anchors, the cfg has none" in capsys.readouterr().err


def test_average_of_weights_and_statistics() -> None:
    trained = Network(make_plan(parse(NET + LAYERS + YOLO)))
    average = RunningAverage(trained, 0.4)
    expected = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    for iteration, decay in ((1, 2 / 11), (2, 3 / 12), (20, 0.4)):
        for name, tensor in trained.state_dict().items():
            tensor += 1
            expected[name] = decay * expected[name] + (1 - decay) * tensor
        average.update(iteration)
        torch.testing.assert_close(dict(average.network.state_dict()), expected)


def test_turned_boxes_stay_on_their_pixels() -> None:
    seen = set()
    for seed in range(40):
        image = np.zeros((8, 8, 3), np.uint8)
        image[1, 2:5] = 255
        moved, boxes = random_symmetry(
            image, np.array([[3.5 / 8, 1.5 / 8, 3 / 8, 1 / 8, 1]], np.float32), np.random.default_rng(seed)
        )
        x, y, w, h = cv2.boundingRect(moved[..., 0])
        np.testing.assert_allclose(boxes, [[(x + w / 2) / 8, (y + h / 2) / 8, w / 8, h / 8, 1]])
        seen.add((x, y))
    assert len(seen) == 8


@pytest.mark.parametrize("held_out", [False, True])
def test_evaluation_on_the_training_images_is_announced(
    held_out: bool, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path("train.txt").write_text("1.png\n2.png\n")
    Path("valid.txt").write_text("0.png\n")
    Path("my.data").write_text("train=train.txt\nnames=my.names\n" + "valid=valid.txt\n" * held_out)
    open_splits("my.data", None, single_cls=False, validation=True, workers=1)
    assert ("no validation images, so mAP is that of the training images" in caplog.text) == (not held_out)


def test_advice_from_the_data(folder: Path) -> None:
    Path("0.txt").write_text("0 0.5 0.5 0.9 0.9\n" * 3)
    for path in folder.glob("[1-5].txt"):
        path.write_text("1 0.5 0.5 0.1 0.1\n" * 10)
    heads = YOLO.replace("mask=0,1", "mask=1").replace("anchors=8,8, 16,16", "anchors=5,4, 40,40")
    plan = make_plan(parse(NET + LAYERS.replace("filters=14", "filters=7") + heads))
    text = "\n".join(advice(plan, check_dataset(open_data("my.data", "train"), "train"), None))
    assert "  cat: 3 in 1 image, median 43x36 pixels" in text and "  dog: 50 in 5 images, median 5x4 pixels" in text
    assert "94% of the objects (100% of dog) have the shape of an anchor that no head uses" in text
    assert "dog is smaller than a cell of the finest grid: expect misses; try --img-size 96" in text
    assert "fewer than 100 objects of cat, dog" in text
    assert "17 times as many dog as cat: --class-balanced" in text
    assert "6 iterations show each image 4.0 times: expect more from --iterations 6000" in text
    assert "--bn-momentum 0.1" in text
    assert "--bn-momentum" not in "\n".join(advice(plan, check_dataset(open_data("my.data", "train"), "train"), 0.1))

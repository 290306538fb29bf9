"""train.py from the command line: run folder, fitting, bit-identical resume, interruption, and all input errors."""

from __future__ import annotations

import csv
import dataclasses
import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import train
from models.heads.softmax import Softmax
from models.load import load
from tests.small_set import YOLO, two_boxes, write_set
from training.checkpoint import Saver, load_checkpoint
from training.loop import Trainer, Update
from utils.cli import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, run_script
from utils.detections import MASKED_TARGET

NET = """[net]
batch=4
subdivisions=2
width=32
height=32
channels=3
learning_rate={rate}
burn_in=2
max_batches=6
policy=steps
steps=4
scales=.1
mosaic=1
saturation=1.5

[convolutional]
batch_normalize=1
filters=6
size=3
stride=2
pad=1
activation=leaky

[dropout]
probability=.3
"""
BOXES = (
    """
[convolutional]
filters=14
size=1
stride=4
activation=linear
"""
    + YOLO
    + "random=1\n"
)
CLASSES = """
[convolutional]
filters=2
size=1
activation=linear

[avgpool]

[softmax]
groups=1
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a cfg and a data set of six images in three classes."""
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path, ("cat", "dog", "emu"), lambda number: two_boxes(number, 3), stem="{number}_{name}")
    Path("my.cfg").write_text(NET.format(rate=0.01) + BOXES)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def command(*flags: str, cfg: str = "my.cfg", data: str = "my.data") -> int:
    return run_script(train.main, ["--cfg", cfg, "--data", data, "--workers", "0", "--no-plots", *flags])


@pytest.mark.slow
def test_files_of_a_run(folder: Path) -> None:
    assert run_script(train.main, ["--cfg", "my.cfg", "--data", "my.data", "--workers", "0"]) == EXIT_OK
    run = folder / "runs" / "train" / "exp"
    weights = sorted(path.name for path in (run / "weights").iterdir())
    assert weights == ["best.pt", "last.pt", "my_best.weights", "my_final.weights", "my_last.weights"]
    assert {"chart.png", "results.png", "train_batch0.jpg", "opt.yaml", "labels.jpg"} <= {
        path.name for path in run.iterdir()
    }
    labels, predictions = (np.asarray(cv2.imread(str(run / f"val_batch0_{what}.jpg"))) for what in ("labels", "pred"))
    assert labels.shape == predictions.shape and (labels != predictions).any()
    rows = list(csv.DictReader((run / "results.csv").open()))
    assert [row["iteration"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert rows[-1]["mAP_0.5"]
    fitted = (run / "my.cfg").read_text()
    assert "filters=16" in fitted and "classes=3" in fitted
    assert load(run / "my.cfg", run / "weights" / "my_final.weights").seen == 24
    assert (folder / "my.cfg").read_text() == NET.format(rate=0.01) + BOXES


def stop_at(monkeypatch: pytest.MonkeyPatch, iteration: int, number: signal.Signals) -> None:
    before = Saver.__call__

    def stop(self: Saver, update: Update) -> None:
        before(self, update)
        if update.iteration == iteration:
            signal.raise_signal(number)

    monkeypatch.setattr(Saver, "__call__", stop)


@pytest.mark.parametrize(
    ("number", "flags"),
    [
        (signal.SIGINT, ()),
        (signal.SIGTERM, ("--adamw", "--clip-grad-norm", "2", "--set", "decay=0.05")),
    ],
)
def test_an_interrupted_run_resumes_bit_for_bit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, flags: tuple[str, ...]
) -> None:
    assert command("--name", "whole", "--no-val", *flags) == EXIT_OK
    with monkeypatch.context() as patch:
        stop_at(patch, 3, number)
        assert command("--name", "parts", "--no-val", *flags) == EXIT_INTERRUPTED
    parts = folder / "runs" / "train" / "parts" / "weights"
    assert load_checkpoint(parts / "last.pt").iteration == 3
    assert not (parts / "my_final.weights").exists()
    assert run_script(train.main, ["--resume", str(parts.parent), "--workers", "0"]) == EXIT_OK
    whole = folder / "runs" / "train" / "whole"
    assert (parts / "my_final.weights").read_bytes() == (whole / "weights" / "my_final.weights").read_bytes()
    rows = [list(csv.DictReader((run / "results.csv").open())) for run in (whole, parts.parent)]
    first, second = ([row["loss"] for row in each] for each in rows)
    assert first == second


def test_class_balanced_rectangular_batches_resume_bit_for_bit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Path("my.cfg").write_text(
        (NET.format(rate=0.01) + BOXES).replace("random=1", "").replace("mosaic=1", "letter_box=1")
    )
    for path in sorted(folder.glob("*.png"))[:3]:
        cv2.imwrite(str(path), np.full((20, 80, 3), 90, np.uint8))
    flags = ("--no-val", "--rect", "--class-balanced", "--img-size", "64", "--batch-size", "2", "--subdivisions", "1")
    with caplog.at_level(logging.INFO):
        assert command("--name", "whole", *flags) == EXIT_OK
    assert "batches have 2 shapes" in caplog.text and "64x32 (3 images)" in caplog.text
    with monkeypatch.context() as patch:
        stop_at(patch, 3, signal.SIGTERM)
        assert command("--name", "parts", *flags) == EXIT_INTERRUPTED
    parts, whole = (folder / "runs" / "train" / name / "weights" for name in ("parts", "whole"))
    assert run_script(train.main, ["--resume", str(parts / "last.pt"), "--workers", "0"]) == EXIT_OK
    assert (parts / "my_final.weights").read_bytes() == (whole / "my_final.weights").read_bytes()


def test_flags_change_the_cfg_and_are_recorded(folder: Path) -> None:
    flags = ("--iterations", "3", "--batch-size", "6", "--subdivisions", "3", "--img-size", "64", "32", "--adam")
    assert command(*flags, "--no-val", "--anchors", "3") == EXIT_OK
    run = folder / "runs" / "train" / "exp"
    network = load(run / "my.cfg", run / "weights" / "my_final.weights")
    assert (network.plan.net.batch, network.plan.net.subdivisions) == (6, 3)
    assert (network.plan.input.width, network.plan.input.height) == (64, 32)
    assert network.seen == 18
    text = (run / "my.cfg").read_text()
    assert "steps=2\n" in text and "adam=1" in text and "num=3" in text and "mask=0,1,2" in text
    record = (run / "opt.yaml").read_text()
    assert "  iterations: 3\n" in record and '  max_batches: "3"\n' in record


def test_wrong_filters_before_a_head_are_corrected(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    Path("my.cfg").write_text((NET.format(rate=0.01) + BOXES).replace("filters=14", "filters=255"))
    assert command("--no-val", "--iterations", "1") == EXIT_OK
    assert "[convolutional] filters=255 corrected to 14" in caplog.text
    assert "filters=16\n" in (folder / "runs" / "train" / "exp" / "my.cfg").read_text()


def test_any_key_of_net_can_be_set_for_one_run(folder: Path) -> None:
    flags = ("--set", "learning_rate=0.02", "burn_in=1", "--set", "decay=0.001", "--epochs", "2")
    assert command("--no-val", *flags, "--set", "batch=2", "max_batches=12") == EXIT_OK
    run = folder / "runs" / "train" / "exp"
    text = (run / "my.cfg").read_text()
    assert "learning_rate=0.02\n" in text and "burn_in=1\n" in text and "decay=0.001\n" in text
    assert "batch=2\n" in text and "max_batches=6\n" in text and "steps=2\n" in text
    record = (run / "opt.yaml").read_text()
    assert '  overrides: ["learning_rate=0.02", "burn_in=1",' in record and '  decay: "0.001"\n' in record


def test_keys_of_heads_can_be_set_too(folder: Path) -> None:
    keys = ("random=0", "jitter=.1", "label_smooth_eps=.2", "learning_rate=.003")  # [net] has the last two as well
    assert command("--no-val", "--set", *keys, "--iterations", "1") == EXIT_OK
    net, head = (folder / "runs" / "train" / "exp" / "my.cfg").read_text().split("[yolo]")
    assert "random=0\n" in head and "random=1" not in head and "jitter=.1" in head
    assert "label_smooth_eps=.2" in head and "learning_rate=.003" in net
    assert "label_smooth_eps" not in net and "learning_rate" not in head


def test_label_smoothing_of_a_classifier_is_set_in_net(folder: Path) -> None:
    Path("my.cfg").write_text(NET.format(rate=0.01).replace("mosaic=1\n", "") + CLASSES)
    assert command("--no-val", "--set", "label_smooth_eps=.2", "--iterations", "1") == EXIT_OK
    assert "label_smooth_eps=.2" in (folder / "runs" / "train" / "exp" / "my.cfg").read_text()


def test_old_spellings_of_flags_and_options_are_understood() -> None:
    options = train.parse_arguments(["--notest", "--nosave", "--noplots", "--augment", "a.json"])
    assert options.no_val and options.no_save and options.no_plots and options.albumentations == "a.json"
    kept = {"notest": True, "net": ["decay=0"], "augment": None, "img_size": [64, 32]}
    assert options.with_plain(kept) == dataclasses.replace(
        options, no_val=True, overrides=("decay=0",), albumentations=None, img_size=(64, 32)
    )


def test_the_kind_of_weights_is_found_by_content(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert command("--no-val", "--name", "first") == EXIT_OK
    made = folder / "runs" / "train" / "first" / "weights"
    (made / "last.pt").rename("renamed.weights")
    with caplog.at_level(logging.INFO):
        assert command("--no-val", "--weights", "renamed.weights", "--clear", "--iterations", "1") == EXIT_OK
        assert command("--no-val", "--weights", "renamed.weights", "--single-cls", "--iterations", "1") == EXIT_OK
    assert "loaded 2 of 2 layers" in caplog.text
    assert "loaded 1 of 2 layers" in caplog.text and "the other layers start with random weights" in caplog.text


@pytest.mark.parametrize("name", ["my_final.weights", "last.pt"])
def test_a_detector_starts_from_a_classifier(folder: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    Path("classifier.cfg").write_text(NET.format(rate=0.01).replace("mosaic=1\n", "") + CLASSES)
    assert command("--no-val", "--name", "classifier", cfg="classifier.cfg") == EXIT_OK
    made = folder / "runs" / "train" / "classifier" / "weights"
    start = made / name.replace("my", "classifier")
    with caplog.at_level(logging.INFO):
        assert command("--no-val", "--set", "learning_rate=0", "burn_in=0", "--weights", str(start)) == EXIT_OK
    assert "loaded 1 of 2 layers" in caplog.text
    states = [
        load_checkpoint(folder / "runs" / "train" / run / "weights" / "last.pt").model for run in ("classifier", "exp")
    ]
    assert torch.equal(states[0]["layers.0.weights"], states[1]["layers.0.weights"])


@pytest.mark.parametrize("kind", ["a backbone", "cut off"])
def test_partial_weights_start_at_iteration_zero(folder: Path, kind: str) -> None:
    assert command("--no-val", "--name", "first") == EXIT_OK
    run = folder / "runs" / "train" / "first"
    content = (run / "weights" / "my_final.weights").read_bytes()
    head = 4 * (16 * 6 + 16)  # bytes of the last convolution
    Path("part.weights").write_bytes(content[: -head if kind == "a backbone" else 4 - head])
    assert command("--no-val", "--weights", "part.weights", "--iterations", "2") == EXIT_OK
    assert load_checkpoint(folder / "runs" / "train" / "exp" / "weights" / "last.pt").seen == 8


def test_images_have_one_channel_or_three(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--no-val", "--set", "channels=4") == EXIT_BAD_INPUT
    assert "channels=4" in capsys.readouterr().err
    assert not (folder / "runs" / "train").exists()


def test_a_checkpoint_that_does_not_fit_is_refused_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--no-val") == EXIT_OK
    last = folder / "runs" / "train" / "exp" / "weights" / "last.pt"
    Path("other.cfg").write_text((NET + BOXES).replace("filters=6", "filters=600").format(rate=0.01))
    assert command("--weights", str(last), cfg="other.cfg") == EXIT_BAD_INPUT
    assert f"error: {last}: " in capsys.readouterr().err


def test_an_empty_validation_list_is_refused_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("none.txt").write_text("")
    Path("my.data").write_text(Path("my.data").read_text().replace("valid=list.txt", "valid=none.txt"))
    assert command() == EXIT_BAD_INPUT
    assert "split 'val'" in capsys.readouterr().err and not (folder / "runs" / "train").exists()
    assert command("--no-val", "--iterations", "1") == EXIT_OK


def test_weights_past_the_end_are_refused_with_a_hint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--no-val", "--name", "first") == EXIT_OK
    final = folder / "runs" / "train" / "first" / "weights" / "my_final.weights"
    assert command("--weights", str(final)) == EXIT_BAD_INPUT
    assert "24 images" in capsys.readouterr().err
    assert command("--weights", str(final), "--no-val", "--iterations", "7") == EXIT_OK


def test_a_classifier_is_trained(folder: Path) -> None:
    Path("my.cfg").write_text(NET.format(rate=0.01).replace("mosaic=1\n", "") + CLASSES)
    assert command("--eval-period", "3") == EXIT_OK
    exp = folder / "runs" / "train" / "exp"
    assert "filters=3" in (exp / "my.cfg").read_text()
    rows = list(csv.DictReader((exp / "results.csv").open()))
    assert [row["iteration"] for row in rows if row["top1"]] == ["3", "6"]
    assert all(0 <= float(row["top1"]) <= float(row["top3"]) == 1 for row in rows if row["top1"])
    assert (exp / "weights" / "best.pt").exists()


def test_a_classifier_whose_labels_are_in_no_path_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("my.cfg").write_text(NET.format(rate=0.01).replace("mosaic=1\n", "") + CLASSES)
    Path("my.data").write_text(Path("my.data").read_text() + "labels=my.labels\n")
    Path("my.labels").write_text("n0\nn1\nn2\n")
    assert command() == EXIT_BAD_INPUT
    assert "no path of split 'val'" in capsys.readouterr().err
    assert not (folder / "runs" / "train" / "exp").exists()


def test_a_tree_of_classes_is_trained_by_groups_of_siblings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree is next to the cfg; the run is resumed from the run folder, which has a copy."""
    Path("cfg").mkdir()
    Path("cfg/my.tree").write_text("cat\ndog 0\nemu 0\n")
    text = NET.format(rate=0.01).replace("mosaic=1\n", "") + CLASSES.replace("groups=1", "tree=my.tree")
    Path("cfg/my.cfg").write_text(text.replace("filters=2\n", "filters=3\n"))
    targets, loss = set[tuple[float, ...]](), Softmax.loss

    def spy(self: Softmax, x: torch.Tensor, truth: torch.Tensor, size_wh: tuple[int, int], seen: int) -> object:
        targets.update(tuple(row) for row in truth.tolist())
        return loss(self, x, truth, size_wh, seen)

    monkeypatch.setattr(Softmax, "loss", spy)
    last = stopped(folder, monkeypatch, cfg="cfg/my.cfg")
    Path("cfg/my.tree").unlink()
    assert run_script(train.main, ["--resume", str(last), "--workers", "0"]) == EXIT_OK
    assert targets == {(1, MASKED_TARGET, MASKED_TARGET), (1, 1, 0), (1, 0, 1)}


def test_one_image_is_enough(folder: Path) -> None:
    Path("list.txt").write_text("0_cat.png\n")
    assert command("--iterations", "2") == EXIT_OK


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_layer(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my.cfg").write_text(NET.format(rate=1e30).replace("burn_in=2\n", "") + BOXES)
    assert command("--no-val") == EXIT_FAILED
    said = capsys.readouterr().err
    assert "not finite" in said and "iteration 2" in said and "layer" in said and ".png" in said


def remove_labels() -> None:
    for path in Path().glob("*_*.txt"):
        path.unlink()


def broken_label(text: str) -> None:
    for path in Path().glob("*_*.txt"):
        path.write_text(text)


@pytest.mark.parametrize(
    ("prepare", "flags", "expected"),
    [
        (lambda: Path("my.cfg").write_text(NET.format(rate=1)), (), "no layer with a loss"),
        (lambda: Path("my.cfg").write_text((NET.format(rate=1) + BOXES).replace("batch=4", "batch=1")), (), "batch=1"),
        (
            lambda: Path("my.cfg").write_text((NET + BOXES).replace("max_batches=6\n", "").format(rate=1)),
            (),
            "--iterations",
        ),
        (lambda: broken_label("7 .5 .5 .1 .1\n"), (), "no usable labels"),
        (lambda: broken_label(""), (), "no usable labels"),
        (remove_labels, (), "no usable labels"),
        (lambda: Path("w.weights").write_bytes(b"\0" * 77), ("--weights", "w.weights"), "w.weights"),
        (lambda: Path("w.pt").write_bytes(b"PK\x03\x04" + b"\0" * 77), ("--weights", "w.pt"), "damaged"),
        (lambda: None, ("--weights", "absent.weights"), "absent.weights"),
        (lambda: None, ("--img-size", "32", "32", "32"), "--img-size"),
        (
            lambda: Path("my.cfg").write_text((NET + "[reorg3d]\nstride=2\n").format(rate=1) + BOXES),
            ("--img-size", "33"),
            "at the size of --img-size: most networks need multiples of 32",
        ),
        (lambda: None, ("--anchors", "many"), "--anchors"),
        (lambda: None, ("--amp", "fp16", "--device", "cpu"), "fp16"),
        (lambda: None, ("--device", "0,1"), "torchrun --nproc_per_node 2 train.py"),
        (lambda: None, ("--set", "learning_rat=1"), "did you mean learning_rate?"),
        (lambda: None, ("--set", "burn_in=long"), "error: --set: [net] burn_in: cannot read 'long'"),
        (lambda: None, ("--set", "jitter=much"), "cannot read 'much'"),
        (lambda: None, ("--set", "classes=4"), "neither [net] nor a head has a key classes"),
        (lambda: None, ("--set", "burn_in"), "key=value"),
        (lambda: None, ("--set", "try_fix_nan=1"), "has no effect"),
        (lambda: None, ("--freeze", "9"), "frozen"),
        (lambda: None, ("--rect",), "mosaic=1"),
        (
            lambda: Path("my.cfg").write_text((NET.format(rate=1) + BOXES).replace("mosaic=1", "")),
            ("--rect",),
            "random=1",
        ),
        (lambda: None, ("--resume",), "--resume"),
        (lambda: None, ("--resume", "--plan"), "--plan: describes a new run"),
    ],
)
def test_what_cannot_be_trained_is_one_clear_error(
    prepare: Callable[[], object],
    flags: tuple[str, ...],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
) -> None:
    prepare()
    assert command("--no-val", *flags) == EXIT_BAD_INPUT
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and expected in errors[0]
    assert not (folder / "runs" / "train").exists()


def test_flags_without_effect_are_named(caplog: pytest.LogCaptureFixture) -> None:
    idle = ("--patience", "2", "--eval-period", "1", "--save-period", "1", "--clear")
    assert command("--no-val", "--no-save", *idle, "--iterations", "1") == EXIT_OK
    for flag in ("--patience", "--eval-period", "--save-period", "--clear"):
        assert f"{flag} has no effect" in caplog.text
    caplog.clear()
    assert command("--patience", "2", "--eval-period", "1", "--save-period", "1", "--iterations", "1") == EXIT_OK
    assert "has no effect" not in caplog.text


def test_a_checkpoint_of_another_cfg_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--no-val") == EXIT_OK
    Path("other.cfg").write_text((NET + BOXES).replace("filters=6", "filters=8").format(rate=0.01))
    last = folder / "runs" / "train" / "exp" / "weights" / "last.pt"
    assert command("--resume", str(last), cfg="other.cfg") == EXIT_BAD_INPUT
    assert "filters" in capsys.readouterr().err


def stopped(folder: Path, monkeypatch: pytest.MonkeyPatch, *flags: str, cfg: str = "my.cfg") -> Path:
    """Checkpoint of a run that was stopped after iteration 3 of 6."""
    with monkeypatch.context() as patch:
        stop_at(patch, 3, signal.SIGINT)
        assert command("--no-val", *flags, cfg=cfg) == EXIT_INTERRUPTED
    return folder / "runs" / "train" / "exp" / "weights" / "last.pt"


def test_flags_without_effect_on_a_resumed_run_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    last = stopped(folder, monkeypatch, "--seed", "3")
    again = ["--resume", str(last), "--workers", "0", "--no-plots"]
    assert run_script(train.main, [*again, "--seed", "3", "--iterations", "9", "--set", "decay=0"]) == EXIT_OK
    named = [text.split()[0] for text in caplog.messages if "with --resume" in text]
    assert named == ["--iterations", "--set"]
    assert load_checkpoint(last).iteration == 6
    assert run_script(train.main, [*again, "--iterations", "9"]) == EXIT_BAD_INPUT
    assert "complete at iteration 6; to train longer" in capsys.readouterr().err


def test_a_run_resumes_after_its_data_moved(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ["--resume", str(stopped(folder, monkeypatch)), "--workers", "0", "--data"]
    names = Path("my.names").rename("moved.names")
    text = Path("my.data").read_text()
    Path("my.data").unlink()
    Path("moved.data").write_text(text.replace("my.names", "moved.names"))
    names.write_text("cat\ndog\n")
    assert run_script(train.main, [*again, "moved.data"]) == EXIT_BAD_INPUT
    assert "expected those of" in capsys.readouterr().err
    names.write_text("cat\ndog\nemu\n")
    assert run_script(train.main, [*again, "moved.data"]) == EXIT_OK


def test_last_weights_can_be_saved_only_at_the_end(folder: Path) -> None:
    with Path("my.data").open("a") as stream:
        stream.write("savelast=0\n")
    assert command("--no-val", "--iterations", "2") == EXIT_OK
    assert load_checkpoint(folder / "runs" / "train" / "exp" / "weights" / "last.pt").iteration == 2


def test_single_bad_labels_are_counted_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    Path("0_cat.txt").write_text("9 .5 .5 .1 .1\n1 2.5 .5 .1 .1\n0 .5 .5 0 .1\n")
    with caplog.at_level(logging.INFO):
        assert command("--no-val", "--iterations", "2") == EXIT_OK
    assert "class id 9 is not among the 3 names" in caplog.text


def test_batch_that_does_not_divide_is_cut_with_a_warning(caplog: pytest.LogCaptureFixture, folder: Path) -> None:
    assert command("--no-val", "--batch-size", "5", "--iterations", "2") == EXIT_OK
    assert "not a multiple of subdivisions" in caplog.text
    assert load_checkpoint(folder / "runs" / "train" / "exp" / "weights" / "last.pt").seen == 8


def test_adversarial_training_resumes_bit_for_bit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Perturbed images also lead to different weights."""
    flags = ("--no-val", "--set", "burn_in=0", "--iterations", "6")
    assert command("--name", "plain", *flags) == EXIT_OK
    attack = ("--set", "adversarial_lr=5")
    assert command("--name", "whole", *flags, *attack) == EXIT_OK
    with monkeypatch.context() as patch:
        stop_at(patch, 3, signal.SIGINT)
        assert command("--name", "parts", *flags, *attack) == EXIT_INTERRUPTED
    runs = folder / "runs" / "train"
    assert (
        run_script(train.main, ["--resume", str(runs / "parts" / "weights" / "last.pt"), "--workers", "0"]) == EXIT_OK
    )
    plain, whole, parts = (
        (runs / name / "weights" / "my_final.weights").read_bytes() for name in ("plain", "whole", "parts")
    )
    assert parts == whole != plain


@pytest.mark.parametrize(
    ("threads", "flags", "expected"), [(1, (), 1), (2, (), 2), (8, (), 2), (2, ("--set", "adversarial_lr=0.1"), 1)]
)
def test_passes_of_an_update_share_the_threads(
    threads: int, flags: tuple[str, ...], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []

    class Counted(Trainer):
        def update(self, *arguments: Any, **values: Any) -> Update:
            counts.append(len(self.networks))
            return super().update(*arguments, **values)

    monkeypatch.setattr("training.run.Trainer", Counted)
    Path("my.cfg").write_text(Path("my.cfg").read_text().replace("[dropout]\nprobability=.3\n", ""))
    torch.set_num_threads(threads)
    assert command("--no-val", *flags) == EXIT_OK
    assert counts == [expected] * 6

"""A short run of benchmarks/reproduction.py, and its evaluation of the results."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import train
from benchmarks import reproduction
from benchmarks.reproduction import CIFAR, FULL, SCENES, SHAPES, Result, cfg_text, main, markdown
from benchmarks.shapes import CLASSES, TEN_CLASSES, draw, make_cifar, make_shapes
from data.image import read_image
from data.sources import open_data
from models.plan import make_plan
from training.loop import Update
from training.progress import EpochBar
from utils import cfg
from utils.errors import InputError
from utils.files import write_text

TINY = {
    "shapes": dataclasses.replace(SHAPES, side=32, drawn=1, images=6, batch=2),
    "cifar": dataclasses.replace(CIFAR, drawn=1, images=4, batch=2),
    "scenes": dataclasses.replace(SCENES, side=64, drawn=2, images=4, batch=2),
}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments for a minimal reproduction."""
    monkeypatch.setattr(reproduction, "SMALL", TINY)
    monkeypatch.setattr(reproduction, "VALIDATED", 1)
    return ["--out", str(tmp_path / "out"), "--seeds", "1", "--nets", "csppeleenet", "prn"]


def test_images_depend_on_seed_and_class_alone(tmp_path: Path) -> None:
    images = [draw(np.random.default_rng(7), name, 64) for name in CLASSES]
    assert len({image.tobytes() for image in images}) == len(CLASSES) == 24
    assert (draw(np.random.default_rng(7), CLASSES[3], 64) == images[3]).all()
    folders = [make_shapes(tmp_path / name, 2, 1, 32) for name in "ab"]
    files = [sorted(path.relative_to(folder) for path in folder.rglob("*.png")) for folder in folders]
    assert files[0] == files[1] and len(files[0]) == 3 * len(CLASSES)
    contents = [(tmp_path / "a" / file).read_bytes() for file in files[0]]
    assert contents == [(tmp_path / "b" / file).read_bytes() for file in files[1]]
    assert len(set(contents)) == len(contents), "val repeats train"


def test_ten_classes_in_the_layout_of_cifar(tmp_path: Path) -> None:
    dataset = open_data(make_cifar(tmp_path / "cifar", 2, 1))
    assert set(dataset.names) == set(TEN_CLASSES) and len(dataset.names) == 10
    assert {split: len(images) for split, images in dataset.splits.items()} == {"train": 20, "test": 10}
    image = next(path for path in dataset.splits["train"] if path.parent.name == TEN_CLASSES[3])
    first = draw(np.random.default_rng((0, False, 3, 0)), TEN_CLASSES[3], 32)
    assert (read_image(image) == first).all()


def test_trains_and_reports_only_what_is_missing(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Sequence[str]] = []
    original = train.main

    def recorded(arguments: Sequence[str]) -> int:
        calls.append(arguments)
        return original(arguments)

    monkeypatch.setattr(train, "main", recorded)
    with pytest.MonkeyPatch.context() as stopped:
        stop_at(2, stopped)
        with pytest.raises(KeyboardInterrupt):
            main(tiny)
    assert not (tmp_path / "out" / "results.json").exists()
    assert main(tiny) == 0
    assert [arguments[0] for arguments in calls] == ["--cfg", "--resume", "--cfg"]
    assert calls[2][calls[2].index("--weights") + 1].endswith("shapes-csppeleenet_final.weights")
    found = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert [(each["task"], each["net"], each["seed"]) for each in found] == [
        ("shapes", "csppeleenet", 0),
        ("scenes", "prn", 0),
    ]
    page = (tmp_path / "out" / "results.md").read_text()
    assert f"| csppeleenet | 2.21 | 0.018 | 70.9 | {found[0]['figure']:.1f} |" in page
    assert main(tiny) == 0 and len(calls) == 3, "nothing was missing"
    (tmp_path / "out" / "results.json").unlink()  # as if killed between the end of a training and recording it
    assert main(tiny) == 0 and len(calls) == 3
    again = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert [each["figure"] for each in again] == [each["figure"] for each in found]
    with pytest.raises(InputError, match="trained with other settings"):
        main([*tiny, "--images", "8"])


def stop_at(iteration: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate Ctrl-C at an iteration."""
    original = EpochBar.__call__

    def call(self: EpochBar, update: Update) -> None:
        original(self, update)
        if update.iteration == iteration:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(EpochBar, "__call__", call)


def test_full_reproduction_shortened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--full with its own image sizes, batches and loading processes, but few images, one seed and one net per task."""
    monkeypatch.setattr(reproduction, "VALIDATED", 1)
    out, nets = tmp_path / "out", ("csppeleenet", "densenet40-osa", "prn")
    flags = ["--full", "--seeds", "1", "--nets", *nets, "--drawn", "4", "--images", "2"]
    assert main(["--out", str(out), *flags]) == 0
    found = json.loads((out / "results.json").read_text())["results"]
    assert [(each["task"], each["net"]) for each in found] == list(zip(FULL, nets, strict=True))
    for (name, task), net in zip(FULL.items(), nets, strict=True):
        text = (out / "cfg" / f"{name}-{net}.cfg").read_text()
        assert f"batch={task.batch}\n" in text and f"width={task.side}\n" in text


@pytest.mark.parametrize("name", FULL)
def test_every_net_of_the_full_reproduction_can_be_built(name: str) -> None:
    assert all(make_plan(cfg.parse(cfg_text(name, FULL[name], net))).heads for net in FULL[name].printed)


def test_unknown_nets_are_refused(tiny: list[str]) -> None:
    with pytest.raises(InputError, match="no net 'alexnet', expected some of: peleenet"):
        main([*tiny, "alexnet"])


def test_similar_cost_and_same_recipe() -> None:
    plans = {net: make_plan(cfg.parse(cfg_text("shapes", SHAPES, net))) for net in SHAPES.printed}
    assert len({str(plan.cfg.sections[0].entries) for plan in plans.values()}) == 1
    costs = {net: sum(step.cost.operations for step in plan.steps) for net, plan in plans.items()}
    for net, model in ((reproduction.K24, "peleenet"), (reproduction.K34, "vovnet27-slim")):
        assert costs[net] == pytest.approx(costs[model], rel=0.1)


def test_a_difference_counts_beyond_the_spread(tmp_path: Path) -> None:
    figures = {"prn": (50, 51, 52), "gfm": (60, 61, 62), "efm-plain": (55, 56, 57), "efm": (56, 56, 57)}
    for net in figures:
        write_text(tmp_path / "cfg" / f"scenes-{net}.cfg", cfg_text("scenes", SCENES, net))
    results = [
        Result(task="scenes", net=net, seed=seed, figure=value, seconds=1.0)
        for net, values in figures.items()
        for seed, value in enumerate(values)
    ]
    page = markdown(tmp_path, "scenes", SCENES, results)
    # Pooled over 8 degrees of freedom: sqrt((2 + 2 + 2 + 2/3) / 8) = 0.91; 2.31 * 0.91 * sqrt(2 / 3) = 1.7.
    assert "over all nets: 0.91 with 8 degrees of freedom" in page
    assert "| gfm - prn | +1.2 AP | +10.0 | 1.7 | as printed |" in page
    assert "| efm-plain - gfm | +2.1 AP | -5.0 | 1.7 | the opposite |" in page
    assert "| efm - efm-plain | +0.4 AP | +0.3 | 1.7 | not decided |" in page
    assert "4 of 6 pairs with printed figures are in the printed order" in page

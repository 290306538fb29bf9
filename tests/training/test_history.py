"""TrainingHistory, EMA and progress lines."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from training.charts import write_chart, write_results
from training.history import TrainingHistory
from training.loop import Update
from training.optimizer import Ema
from training.progress import DarknetLines, EpochBar
from training.results import batch_sheet
from training.validation import EvaluationHook


def update(iteration: int, loss: float = 2.0) -> Update:
    return Update(
        iteration=iteration,
        rate=0.001,
        loss=loss,
        terms={"box": loss / 2},
        images=8,
        size_wh=(64, 32),
        seconds=0.5,
        waited=0.25,
    )


def test_rows_are_means_over_the_interval_and_the_average_is_the_originals(tmp_path: Path) -> None:
    history = TrainingHistory(interval=2)
    for iteration, loss in enumerate([10.0, 20.0, 30.0, 40.0], start=1):
        history.add(update(iteration, loss))
    history.evaluated({"mAP_0.5": 0.5})
    average = 10.0
    for loss in (20.0, 30.0, 40.0):
        average = 0.9 * average + 0.1 * loss
    assert history.average == pytest.approx(average)
    history.write(tmp_path / "results.csv")
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [row["loss"] for row in rows] == ["15", "35"]
    assert [row["mAP_0.5"] for row in rows] == ["", "0.5"]
    assert rows[1]["loss_box"] == "17.5"
    assert float(rows[0]["images_per_second"]) == pytest.approx(8 / 0.75)


def test_history_survives_a_round_trip() -> None:
    history = TrainingHistory(interval=3)
    history.add(update(1))
    after = TrainingHistory(interval=3)
    after.load_state_dict(history.state_dict())
    assert (after.rows, after.average) == (history.rows, history.average)
    assert after.series("average_loss") == ([1], [2.0])


def test_charts_are_images(tmp_path: Path) -> None:
    history = TrainingHistory()
    for iteration in range(1, 6):
        history.add(update(iteration))
    history.evaluated({"mAP_0.5": 0.5})
    write_chart(history, tmp_path / "chart.png", max_batches=10, max_loss=20, metric="mAP_0.5")
    write_results(history, tmp_path / "results.png")
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())


@pytest.mark.parametrize(("average", "top"), [(110.0, 115.5), (11.0, 20.0)])
def test_a_loss_above_the_limit_is_visible(
    average: float, top: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = TrainingHistory()
    for iteration in range(1, 4):
        history.add(update(iteration))
        history.rows[-1]["average_loss"] = average
    saved: list[Any] = []
    monkeypatch.setattr("training.charts.save", lambda chart, path: saved.append(chart))
    write_chart(history, tmp_path / "chart.png", max_batches=3, max_loss=20, metric="mAP_0.5")
    axes = saved[0].axes[0]
    assert axes.get_ylim() == (0, pytest.approx(top)) and axes.lines[0].get_ydata().max() == average


def test_ema_runs_from_the_middle_and_is_applied_a_thousand_iterations_before_the_end() -> None:
    weights = {"w": torch.tensor([1.0])}
    ema = Ema(weights, 0.9, 2010)
    expected = 0.0
    for iteration in range(1, 2011):
        if iteration != 1011:
            weights["w"].fill_(float(iteration))
        ema.update(iteration)
        if iteration == 1005:
            expected = 1005.0
        if 1005 <= iteration < 1010:
            expected = 0.9 * expected + 0.1 * iteration
        if iteration == 1004:
            assert not ema.averages
        if iteration == 1010:
            assert weights["w"].item() == pytest.approx(expected)


def test_lines_are_the_originals() -> None:
    history, lines = TrainingHistory(), list[str]()
    line = DarknetLines(history, 1000, lines.append)
    for _ in range(2):
        history.add(update(10))
        line(update(10))
    text = "\n 10: 2.000000, 2.000000 avg loss, 0.001000 rate, 0.500000 seconds, 80 images, {} hours left"
    assert lines == [text.format("-1.000000"), text.format("0.206250")]  # the estimate before the update


@pytest.mark.parametrize(
    ("images", "bars"),
    [
        (8 * 120 + 5, ["epoch 1/2: 120/120", "epoch 2/2: 30/30"]),
        (8 * 25, ["epochs 1-4/6: 100/100", "epochs 5-6/6: 50/50"]),
        (3, ["epochs 3-267/400: 100/100", "epochs 270-400/400: 50/50"]),
    ],
)
def test_bars_of_epochs(images: int, bars: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One for each epoch, or for 100 iterations with several."""
    history = TrainingHistory()
    bar = EpochBar(history, images=images, batch=8, last=150)
    for iteration in range(1, 151):
        history.add(update(iteration))
        bar(update(iteration))
    bar.close()
    shown = capsys.readouterr().err
    ended = re.findall(r"(epochs? [-\d/]+): 100%[^\r]*?(\d+/\d+) ", shown)
    assert list(dict.fromkeys(f"{what}: {count}" for what, count in ended)) == bars
    assert "box 1" in shown and "64x32" in shown and "img/s" in shown
    assert re.search(r"img/s [\d.]+G", shown)


def test_metrics_are_told_apart_from_losses() -> None:
    history = TrainingHistory()
    history.add(update(1))
    history.evaluated({"mAP_0.5": 0.5, "F1": 0.25})
    assert history.metrics == ["mAP_0.5", "F1"]


def test_preview_shows_every_image_with_its_boxes() -> None:
    images = np.zeros((5, 3, 64, 96), np.uint8)
    truth = np.zeros((5, 10, 5), np.float32)
    truth[1, 0] = (0.5, 0.5, 0.5, 0.5, 1)
    sheet = batch_sheet(images, truth, ["a", "b"])
    assert sheet.shape == (2 * 277, 3 * 416, 3)
    inside = sheet[10:267, 426:822]
    assert (inside > 60).any() and not (sheet[10:267, 10:400] > 60).any()
    assert (sheet[277:, 832:] == 255).all()  # no sixth image
    assert batch_sheet(images[:, :1], truth, ["a", "b"]).shape == sheet.shape


@pytest.mark.parametrize(
    ("values", "evaluations", "saved"),
    [
        ([0.5, 0.6, 0.4, 0.5, 0.9], 4, [1, 2]),
        ([1.0, 1.0, 1.0, 1.0], 3, [1, 2, 3]),
        ([0.0, 0.0, 0.0, 0.0, 0.1], 5, [1, 2, 3, 4, 5]),
        ([0.5, 0.0, 0.0, 0.0], 3, [1]),
    ],
    ids=["worse", "all found", "nothing found yet", "diverged"],
)
def test_patience_ends_after_evaluations_without_a_better_result(
    values: list[float], evaluations: int, saved: list[int]
) -> None:
    best = list[int]()
    results = iter([SimpleNamespace(columns={"top1": value}, text=lambda darknet: "") for value in values])
    hook = EvaluationHook(
        evaluate=lambda network: next(results),  # type: ignore[arg-type, return-value]
        metric="top1",
        calibrate=lambda network, iteration: network,
        network=torch.nn.Identity(),  # type: ignore[arg-type]
        history=TrainingHistory(interval=1),
        period=1,
        earliest=1,
        last=len(values),
        patience=2,
        on_best=lambda: best.append(hook.at),
    )
    for iteration in range(1, len(values) + 1):
        hook.history.add(update(iteration))
        hook(update(iteration))
        if hook.exhausted:
            break
    assert (hook.at, best) == (evaluations, saved)

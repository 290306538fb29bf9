"""Scalars for TensorBoard, with a stand-in and, where installed, with the package itself."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from training.history import Board, TrainingHistory, board_wanted
from training.loop import Update
from utils.errors import InputError


class Writer:
    """Records what torch.utils.tensorboard.SummaryWriter would write."""

    made: list[Writer] = []  # noqa: RUF012

    def __init__(self, folder: str, purge_step: int | None = None) -> None:
        self.purge_step, self.closed = purge_step, False
        self.scalars: list[tuple[str, float, int]] = []
        Writer.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[Writer]:
    module: Any = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(Writer, "made", [])
    return Writer


def update(iteration: int) -> Update:
    return Update(
        iteration=iteration, rate=0.1, loss=2.0, terms={"box": 1.0}, images=8, size_wh=(64, 32), seconds=0.5, waited=0.0
    )


def test_every_row_is_written_once_with_its_evaluation(tmp_path: Path, stand_in: type[Writer]) -> None:
    history = TrainingHistory(interval=2)
    board = Board(tmp_path, history)
    for iteration in range(1, 6):
        history.add(update(iteration))
        if iteration == 4:
            history.evaluated({"mAP_0.5": 0.5})
        board.write()
    history.state_dict()  # completes the current row
    board.close()
    (writer,) = stand_in.made
    assert [(step, value) for name, value, step in writer.scalars if name == "loss_box"] == [(2, 1), (4, 1), (5, 1)]
    assert ("mAP_0.5", 0.5, 4) in writer.scalars
    assert {name for name, _, _ in writer.scalars} == set(history.names) - {"iteration"}
    assert writer.closed and writer.purge_step is None


def test_a_resumed_run_continues_after_its_last_row(tmp_path: Path, stand_in: type[Writer]) -> None:
    history = TrainingHistory()
    history.add(update(7))
    board = Board(tmp_path, history)
    history.add(update(8))
    board.write()
    (writer,) = stand_in.made
    assert writer.purge_step == 8 and {step for _, _, step in writer.scalars} == {8}


def test_tensorboard_is_used_if_installed_and_required_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert not board_wanted(None) and not board_wanted(False)
    with pytest.raises(InputError, match="pip install tensorboard"):
        board_wanted(True)


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    history = TrainingHistory()
    board = Board(tmp_path, history)
    history.add(update(3))
    board.close()
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(3, 2.0)]


def test_a_folder_that_tensorboard_cannot_name(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with pytest.raises(InputError, match="TensorBoard needs a folder name in UTF-8"):
        Board(tmp_path / "\udcff", TrainingHistory())

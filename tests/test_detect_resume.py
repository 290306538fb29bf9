"""detect.py --resume: a killed, interrupted or failed run ends with the same files as an undisturbed one."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

import detect
from inference.journal import JOURNAL, Journal
from inference.recorder import Recorder
from inference.results import Result
from tests.test_detect_script import image, make_model, video
from utils.cli import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, run_script
from utils.errors import RunError

FLAGS = ("--save-json", "--save-csv", "--save-txt", "--no-save", "--img-size", "32")


@pytest.fixture(autouse=True)
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Flags for a model, and a list of images and videos with a broken file and duplicate names."""
    monkeypatch.chdir(tmp_path)
    paths = [image(Path("in") / folder / f"{n}.png", 64, 64) for n in range(4) for folder in ("x", "y")]
    (Path("in") / "x" / "1.png").write_bytes(b"broken")
    paths.insert(5, video(Path("in") / "2.mp4", 3))
    Path("list.txt").write_text("".join(f"{path}\n" for path in paths))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield [*make_model(tmp_path, 3), "--source", "list.txt", "--project", "runs", *FLAGS]
    torch.set_num_threads(threads)


def written(name: str) -> dict[str, bytes]:
    folder = Path("runs") / name
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kill_at(frame: int, arguments: list[str]) -> None:
    """Run detect.py in a process that is killed while it records frame number `frame`."""

    def victim() -> None:
        tqdm.set_lock(threading.RLock())  # killed while holding the shared default one, it would block this process
        seen = iter(range(frame))
        record = Recorder._record

        def until(self: Recorder, result: Result) -> None:
            record(self, result)
            if next(seen, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        Recorder._record = until  # type: ignore[method-assign]
        os._exit(run_script(detect.main, arguments))

    process = multiprocessing.get_context("fork").Process(target=victim)
    process.start()
    process.join(100)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("period", [0.0, 1e9])
def test_repeated_kills(sources: list[str], monkeypatch: pytest.MonkeyPatch, period: float) -> None:
    """The journal is written for each image, or never after the start."""
    monkeypatch.setattr("inference.journal._PERIOD_S", period)
    assert run_script(detect.main, [*sources, "--name", "whole"]) == EXIT_FAILED
    kill_at(3, [*sources, "--name", "parts"])
    kill_at(4 if period else 2, [*sources, "--resume"])
    kill_at(1, [*sources, "--resume", "runs/parts"])
    assert "results.json" not in written("parts") and JOURNAL in written("parts")
    assert run_script(detect.main, [*sources, "--resume"]) == EXIT_FAILED
    assert written("parts") == written("whole")


def test_nothing_is_computed_twice(sources: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.journal._PERIOD_S", 0.0)
    kill_at(3, [*sources, "--name", "parts"])
    again: list[str] = []
    record = Recorder._record

    def noted(self: Recorder, result: Result) -> None:
        again.append(result.frame.path)
        record(self, result)

    monkeypatch.setattr(Recorder, "_record", noted)
    run_script(detect.main, [*sources, "--resume"])
    entries = Path("list.txt").read_text().split()
    assert again == [entries[4], *[entries[5]] * 3, *entries[6:]]


def test_after_ctrl_c(sources: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run_script(detect.main, [*sources, "--name", "whole"])
    add, seen = Recorder.add, iter(range(3))

    def interrupted(self: Recorder, result: Result) -> None:
        add(self, result)
        if next(seen, None) is None:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "add", interrupted)
        assert run_script(detect.main, [*sources, "--name", "parts"]) == EXIT_INTERRUPTED
    assert "repeat the command with --resume" in capsys.readouterr().out
    assert json.loads(written("parts")["results.json"])
    run_script(detect.main, [*sources, "--resume"])
    assert written("parts") == written("whole")


def test_after_a_failure(sources: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run_script(detect.main, [*sources, "--name", "whole"])
    record, seen = Recorder._record, iter(range(5))

    def full(self: Recorder, result: Result) -> None:
        if next(seen, None) is None:
            raise RunError("the disk is full")
        record(self, result)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "_record", full)
        assert run_script(detect.main, [*sources, "--name", "parts"]) == EXIT_FAILED
    run_script(detect.main, [*sources, "--resume"])
    assert written("parts") == written("whole")


def test_results_lost_in_a_power_cut_are_recomputed(sources: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """If files are shorter than the journal states, the run continues from the last progress that they contain."""
    monkeypatch.setattr("inference.journal._PERIOD_S", 0.0)
    run_script(detect.main, [*sources, "--name", "whole"])
    kill_at(6, [*sources, "--name", "parts"])
    table = Path("runs/parts/results.csv")
    table.write_bytes(table.read_bytes()[: table.stat().st_size // 2])
    kill_at(1, [*sources, "--resume"])
    run_script(detect.main, [*sources, "--resume"])
    assert written("parts") == written("whole")


def test_refusals(sources: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(detect.main, [*sources, "--resume"]) == EXIT_BAD_INPUT
    assert "no unfinished run in runs" in capsys.readouterr().err
    run_script(detect.main, [*sources, "--name", "whole"])
    assert run_script(detect.main, [*sources, "--resume", "runs/whole"]) == EXIT_BAD_INPUT
    assert "has no unfinished run to resume" in capsys.readouterr().err
    kill_at(3, [*sources, "--name", "parts"])
    before = written("parts")
    assert run_script(detect.main, [*sources, "--resume", "--conf-thres", "0.5"]) == EXIT_BAD_INPUT
    assert "conf_thres is 0.5, it was 0.25; repeat the command" in capsys.readouterr().err
    Path("list.txt").write_text(Path("list.txt").read_text() + "in/x/0.png\n")
    assert run_script(detect.main, [*sources, "--resume"]) == EXIT_BAD_INPUT
    assert "the source has other images and videos" in capsys.readouterr().err
    assert written("parts") == before


def test_a_damaged_journal(sources: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    kill_at(3, [*sources, "--name", "parts"])
    Path("runs/parts", JOURNAL).write_bytes(b"\0\n\n")
    assert run_script(detect.main, [*sources, "--resume"]) == EXIT_BAD_INPUT
    assert "has no unfinished run" in capsys.readouterr().err


def test_a_million_entries_take_little_time(tmp_path: Path) -> None:
    entries = [f"in/{n}.jpg" for n in range(1_000_000)]
    with Journal(tmp_path, entries, {}) as journal:
        for number in range(len(entries)):
            journal.note(number, {"results.csv": number})
    assert (tmp_path / JOURNAL).stat().st_size < 100_000

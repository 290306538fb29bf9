"""How the scripts respond to the original's flags."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import detect
import test as evaluate
import train


@pytest.mark.parametrize(
    ("parse", "arguments", "answer"),
    [
        (detect.parse_arguments, ["-thresh", ".3"], "-thresh is a flag of the original, use --conf-thres"),
        (
            detect.parse_arguments,
            ["--source", "a.jpg", "-dont_show"],
            "-dont_show is a flag of the original, leave it out",
        ),
        (detect.parse_arguments, ["-i", "0"], "-i is a flag of the original, use --device"),
        (evaluate.parse_arguments, ["-iou_thresh", "0.75"], "-iou_thresh is a flag of the original, use --match-iou"),
        (evaluate.parse_arguments, ["-thresh", "0.3"], "-thresh is a flag of the original, use --pr-conf"),
        (train.parse_arguments, ["-map"], "-map is a flag of the original, leave it out"),
        (train.parse_arguments, ["-gpus", "0,1"], "-gpus is a flag of the original, use --device"),
        (
            train.parse_arguments,
            ["-points", "11"],
            "-points is a flag of the original, which python darknet.py accepts",
        ),
    ],
)
def test_flags_of_the_original(
    parse: Callable[[list[str]], object], arguments: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2 and answer in capsys.readouterr().err


def test_values_that_look_like_flags_are_left_alone() -> None:
    assert detect.parse_arguments(["--conf-thres", "0.3"]).conf_thres == 0.3


@pytest.mark.parametrize("value", ["0", "-1", "1.5", str(2**31), str(2**64), "9" * 5000])
def test_absurd_numbers_are_rejected(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        detect.parse_arguments(["--batch-size", value])
    assert ended.value.code == 2 and "invalid whole number above 0" in capsys.readouterr().err

"""How the scripts respond to the original's flags."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

import convert
import detect
import test as evaluate
import train
from utils.errors import InputError


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
def test_flags_of_the_original(parse: Callable[[list[str]], object], arguments: list[str], answer: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(answer)}$"):
        parse(arguments)


def test_values_that_look_like_flags_are_left_alone() -> None:
    assert detect.parse_arguments(["--conf-thres", "0.3"]).conf_thres == 0.3


@pytest.mark.parametrize("value", ["0", "-1", "1.5", str(2**31), str(2**64), "9" * 5000])
def test_absurd_numbers_are_rejected(value: str) -> None:
    with pytest.raises(InputError, match=f"^--batch-size: expected a whole number above 0, found '{value:.40}'"):
        detect.parse_arguments(["--batch-size", value])


@pytest.mark.parametrize(
    ("parse", "arguments", "answer"),
    [
        (
            detect.parse_arguments,
            ["--conf-thres", "0,25"],
            "--conf-thres: expected a number between 0 and 1, found '0,25'",
        ),
        (detect.parse_arguments, ["--souce", "a.jpg"], "there is no flag --souce, did you mean --source?"),
        (detect.parse_arguments, ["--zzz=3"], "there is no flag --zzz"),
        (detect.parse_arguments, ["a.jpg"], "unrecognized arguments: a.jpg"),
        (
            convert.parse_arguments,
            ["weights", "--weigths", "a.pt"],
            "there is no flag --weigths, did you mean --weights?",
        ),
    ],
)
def test_wrong_flags_are_one_sentence(
    parse: Callable[[list[str]], object], arguments: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError) as error:
        parse(arguments)
    assert str(error.value).startswith(f"{answer}; see ") and str(error.value).endswith(" --help")
    assert not capsys.readouterr().err

"""The original's grammar: a command, positional words, and flags anywhere among them (utils.c find_arg etc.)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from utils.cli import as_typed
from utils.errors import InputError, RunError

logger = logging.getLogger(__name__)

Flag = tuple[Callable[[str], Any] | None, Any]  # how to read the value (None: a switch) and the default

_SWITCH: Flag = (None, False)
_TEXT: Flag = (str, None)
_COMMON: dict[str, Flag] = {"-i": (int, None), "-nogpu": _SWITCH}
_DETECTOR: dict[str, Flag] = {
    **dict.fromkeys(("-dont_show", "-benchmark", "-benchmark_layers", "-show", "-letter_box", "-map"), _SWITCH),
    **dict.fromkeys(("-show_imgs", "-dontdraw_bbox", "-ext_output", "-save_labels", "-clear"), _SWITCH),
    **dict.fromkeys(("-http_post_host", "-out_filename", "-json_file_output", "-out", "-prefix", "-chart"), _TEXT),
    "-gpus": _TEXT,
    "-points": (int, 0),
    "-mjpeg_port": (int, -1),
    "-avgframes": (int, 3),
    "-json_port": (int, -1),
    "-time_limit_sec": (int, 0),
    "-thresh": (float, 0.25),
    "-iou_thresh": (float, 0.5),
    "-hier": (float, 0.5),
    "-c": (int, 0),
    "-s": (int, 0),
    "-num_of_clusters": (int, 5),
    "-width": (int, -1),
    "-height": (int, -1),
    "-mAP_epochs": (int, 4),
}
_CLASSIFIER: dict[str, Flag] = {
    **dict.fromkeys(("-dont_show", "-benchmark", "-benchmark_layers", "-dontuse_opencv"), _SWITCH),
    **dict.fromkeys(("-show_imgs", "-topk", "-clear"), _SWITCH),
    **dict.fromkeys(("-gpus", "-chart"), _TEXT),
    "-mjpeg_port": (int, -1),
    "-c": (int, 0),
    "-t": (int, 0),
}
_FLAGS: dict[str, dict[str, Flag]] = {
    "detector": _DETECTOR,
    "classifier": _CLASSIFIER,
    "detect": {"-thresh": (float, 0.24), "-ext_output": _SWITCH, "-dont_show": _SWITCH},
    "classify": {"-dont_show": _SWITCH},
}
# Flags that a sub-command uses; the original accepts the others without effect, and -dont_show with every command.
_READ = {
    "detector test": "-thresh -letter_box -ext_output -out -save_labels -benchmark_layers",
    "detector demo": "-thresh -letter_box -ext_output -benchmark -avgframes -dontdraw_bbox -json_port -mjpeg_port"
    " -http_post_host -time_limit_sec -out_filename -json_file_output -prefix -c -s -benchmark_layers",
    "detector map": "-thresh -iou_thresh -points",
    "detector valid": "-out",
    "detector recall": "",
    "detector calc_anchors": "-num_of_clusters -width -height -show",
    "detector train": "-clear -map -mAP_epochs -chart -gpus -mjpeg_port -show_imgs -thresh -iou_thresh",
    "classifier predict": "-t -benchmark_layers",
    "classifier valid": "",
    "classifier valid10": "",
    "classifier train": "-clear -topk -chart -gpus -mjpeg_port -show_imgs",
    "classifier demo": "-c -benchmark",
    "detect ": "-thresh -ext_output",
    "classify ": "",
}
_NUMBERS: dict[Any, str] = {int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Words:
    """A parsed command line. words: everything but flags, the command first. flags: the value of every known flag."""

    words: tuple[str, ...]
    flags: Mapping[str, Any]

    def __getitem__(self, flag: str) -> Any:
        return self.flags[flag]

    def at(self, place: int, what: str) -> str:
        """Return the word at a position. Raises InputError, calling it `what`, if it is missing."""
        if place >= len(self.words):
            raise InputError(f"{' '.join(self.words)}: {what} is missing")
        return self.words[place]

    def get(self, place: int) -> str | None:
        return self.words[place] if place < len(self.words) else None


def parse(arguments: Sequence[str]) -> Words:
    """Parse a command line. Raises InputError for an unknown flag and for a value that is missing or not a number.

    The first of repeated flags is used, as in the original, which ignores unknown flags or treats them as words.
    """
    rest = [word.translate({9: None, 10: None, 13: None}) for word in arguments]
    command = _command_of(rest)
    known = {**_FLAGS.get(command, {}), **_COMMON}
    values: dict[str, Any] = {}
    words: list[str] = []
    given = iter(rest)
    for word in given:
        if word not in known:
            if (word[:1] == "-" and word[1:2].isalpha()) or word[:2] == "--":
                raise InputError(f"{word}: the original has no such flag for '{command}'")
            words.append(word)
            continue
        kind, _ = known[word]
        value: Any = True
        if kind is not None:
            text = next(given, None)
            if text is None:
                raise InputError(f"{word}: its value is missing")
            value = _value(word, text, kind)
        if word in values:
            logger.warning("%s is given twice, the first one counts", word)
        values.setdefault(word, value)
    parsed = Words(tuple(words), {flag: values.get(flag, default) for flag, (_, default) in known.items()})
    _warn_without_effect(parsed, values)
    return parsed


def _command_of(words: Sequence[str]) -> str:
    """Return the first word that is neither a common flag nor the value of one; empty if there is none."""
    given = iter(words)
    for word in given:
        if word in _COMMON:
            if _COMMON[word][0] is not None:
                next(given, None)
        elif word:
            return word
    return ""


def _value(flag: str, text: str, kind: Callable[[str], Any]) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"{flag}: cannot read '{text}', expected {_NUMBERS[kind]}") from None


def _warn_without_effect(parsed: Words, given: Mapping[str, Any]) -> None:
    command = parsed.words[0] if parsed.words else ""
    read = _READ.get(f"{command} {parsed.get(1)}" if command in ("detector", "classifier") else f"{command} ")
    if read is None:
        return
    for flag in given:
        if flag not in (*read.split(), "-dont_show", *_COMMON):
            logger.warning("%s has no effect on %s %s, as in the original", flag, command, parsed.get(1) or "")


USAGE = {
    "": "usage: {program} <function>",
    "detector": "usage: {program} detector [train/test/valid/demo/map] [data] [cfg] [weights (optional)]",
    "classifier": "usage: {program} classifier [train/test/valid] [cfg] [weights (optional)]",
}

_DEMOS = "its networks were not published; detect.py runs your own cfg"
NOT_OFFERED = {
    "3d": "it combines two photographs into a red-blue image, which is not a detector's task",
    "yolo": "use 'detector', or train.py, test.py and detect.py",
    "coco": "use 'detector', or train.py, test.py and detect.py",
    "voxel": f"it extracts images from videos for its authors' network; {_DEMOS}",
    "super": f"super-resolution: {_DEMOS}",
    "cifar": "use 'classifier' or train.py with a .data file of the images",
    "go": f"it plays Go: {_DEMOS}",
    "rnn": "it generates text; detect.py and train.py run recurrent layers on images",
    "vid": f"recurrent networks on videos: {_DEMOS}",
    "art": f"it tells artists apart: {_DEMOS}; use 'classifier'",
    "tag": "use 'classifier' with a [logistic] head, or train.py",
    "compare": "it ranks images with its authors' network; `convert.py compare` compares two models",
    "dice": "use 'classifier', or train.py",
    "writing": f"it finds handwriting: {_DEMOS}",
    "captcha": "use 'classifier', or train.py",
    "nightmare": "it changes images until a layer fires; use a feature visualisation library with the exported ONNX model",
    "visualize": "`info.py --plot` draws the layers of a cfg",
    "oneoff": "`train.py` fits a cfg to the classes of a dataset",
    "detector draw": "it draws boxes by hand; detect.py draws detections",
    "classifier try": "it supports only networks with 224 x 224 pixels; use 'classifier predict'",
    "classifier test": "use 'classifier predict' with a list of images on stdin",
    "classifier label": "use 'classifier predict' with a list of images on stdin",
    "classifier validmulti": "use 'classifier valid', or test.py --img-size",
    "classifier validcrop": "use 'classifier valid'",
    "classifier validfull": "use 'classifier valid', or test.py --img-size",
    "classifier gun": f"{_DEMOS}; use 'classifier demo'",
    "classifier threat": f"{_DEMOS}; use 'classifier demo'",
}
NOT_OFFERED["reset_normalize_net"] = "that is the name of a C function; the command is 'reset'"


def refusal(words: Sequence[str]) -> RunError:
    """Return the error for words that are not a command here."""
    command = words[0]
    two = " ".join(words[:2])
    for name in (two, command):
        if name in NOT_OFFERED:
            return RunError(as_typed(f"darknet {name}: not supported: {NOT_OFFERED[name]}"))
    if command in ("detector", "classifier"):
        return RunError(f" There isn't such command: {words[1]}")
    return RunError(f"Not an option: {command}")

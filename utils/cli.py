"""Shared parts of the scripts: exit codes, console logging and common flags."""

from __future__ import annotations

import argparse
import difflib
import io
import logging
import math
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from types import FrameType
from typing import Any, NoReturn, Protocol, TypeVar

from utils.errors import InputError, RunError
from utils.letterbox import KERNELS
from utils.memory import keep_freed_memory
from utils.version import VERSION

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_PIPE_CLOSED = 0, 1, 2, 130, 141

_NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "Failed to allocate memory",
    "CUDA out of memory",
    "OutOfMemoryError",
    "std::bad_alloc",
)

_Record = TypeVar("_Record")
_Number = TypeVar("_Number", int, float)
PACKAGE = __name__.rpartition("utils.cli")[0]  # "cspyolo." in an installed package, empty in a clone


def run_script(
    main: Callable[[Sequence[str] | None], int],
    arguments: Sequence[str] | None = None,
    *,
    bad_input: int = EXIT_BAD_INPUT,
) -> int:
    """Run a script's `main`; return its exit code and report an error as one line on stderr.

    0: success, 1: the run failed, `bad_input` (2): bad input, 130: Ctrl-C or SIGTERM. Both signals raise
    KeyboardInterrupt in `main`, in a background process too.
    """
    keep_freed_memory()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # for paths and class names that cannot be encoded
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        with _handling(signal.default_int_handler):
            return main(arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return bad_input
    except RunError as error:
        print(f"failed: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of the output closed the pipe, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    except Exception as error:
        if not out_of_memory(error):
            raise
        print("failed: out of memory; try a smaller --img-size or --batch-size, or fewer --workers", file=sys.stderr)
        return EXIT_FAILED


def out_of_memory(error: Exception) -> bool:
    """Return whether Python, PyTorch, OpenCV or an engine ran out of memory; only the first two have a type for that."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY)


@contextmanager
def _handling(handle: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Call `handle` on SIGINT and SIGTERM in the block; no effect outside the main thread, which alone can set handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class StopRequest:
    """made: whether SIGINT or SIGTERM has been received."""

    made: bool = False


@contextmanager
def stop_request(on_request: Callable[[], None] | None = None) -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM in the block into a request to stop; a second one raises KeyboardInterrupt.

    For loops that consume the work of threads: KeyboardInterrupt can be raised between any two instructions and, inside
    a queue, leave threads deadlocked. on_request: called in the signal handler.
    """
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if request.made:
            raise KeyboardInterrupt
        request.made = True
        if on_request is not None:
            on_request()

    with _handling(handle):
        yield request


# Flags of the original -> equivalent flags here, the most common first; "": not needed.
_ORIGINAL_FLAGS = {
    "-thresh": ("--pr-conf", "--conf-thres"),
    "-iou_thresh": ("--match-iou",),
    "-letter_box": ("--letter-box 1",),
    "-ext_output": ("--save-csv", "--save-json"),
    "-out": ("--save-json",),
    "-out_filename": ("--out",),
    "-json_file_output": ("--save-json",),
    "-save_labels": ("--save-txt",),
    "-points": ("--points",),
    "-dont_show": ("",),
    "-map": ("",),
    "-clear": ("--clear",),
    "-mAP_epochs": ("--eval-period",),
    "-gpus": ("--device",),
    "-i": ("--device",),
    "-nogpu": ("--device cpu",),
    "-c": ("--source",),
    "-num_of_clusters": ("--anchors",),
    "-width": ("--img-size",),
    "-height": ("--img-size",),
}


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are InputErrors of one sentence.

    The one for a flag of the original names the equivalent flag here, the one for a mistyped flag a similar one.
    """

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message.removeprefix('argument ')}; see {self.prog} --help")

    def _flags(self) -> list[str]:
        """Return the flags of this parser and of its commands."""
        commands = (each.choices.values() for each in self._actions if isinstance(each, argparse._SubParsersAction))
        return [*self._option_string_actions, *(flag for parser in chain(*commands) for flag in parser._flags())]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        flags = self._flags()
        for word in sys.argv[1:] if args is None else args:
            if word in _ORIGINAL_FLAGS and word not in flags:
                raise InputError(self._instead_of(word))
            flag = word.partition("=")[0]
            if re.match("--.", flag) and not any(each.startswith(flag) for each in flags):
                similar = difflib.get_close_matches(flag, flags, 1)
                self.error(f"there is no flag {flag}" + "".join(f", did you mean {each}?" for each in similar))
        return super().parse_known_args(args, namespace)

    def _instead_of(self, flag: str) -> str:
        for own in _ORIGINAL_FLAGS[flag]:
            if not own:
                return f"{flag} is a flag of the original, leave it out"
            if own.split()[0] in self._option_string_actions:
                return f"{flag} is a flag of the original, use {own}"
        return f"{flag} is a flag of the original, which " + as_typed("python darknet.py") + " accepts"


def script_parser(prog: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser with --version for the script `prog` ("detect.py", "python -m compose"). description: its docstring."""
    formatter = argparse.RawDescriptionHelpFormatter
    text = as_typed(f"{description or ''}")
    parser = _Parser(prog=as_typed(prog), description=text, formatter_class=formatter)
    parser.add_argument("--version", action="version", version=f"cspyolo {VERSION}")
    return parser


def as_typed(text: str) -> str:
    """Return `text` with commands as typed here: "python detect.py" in a clone, "cspyolo detect" once installed."""
    if not PACKAGE:
        return text
    text = re.sub(r"(?:python )?\b(detect|train|test|info|convert|export|serve|darknet)\.py\b", r"cspyolo \1", text)
    return text.replace("python -m compose", "cspyolo compose").replace("python -m data.", f"python -m {PACKAGE}data.")


def number(kind: Callable[[str], _Number], least: float, most: float, name: str) -> Callable[[str], _Number]:
    """Return the type of a flag for a number from `least` to `most`, which error messages call `name`."""

    def read(text: str) -> _Number:
        value: _Number | None
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected a {name}, found '{text:.40}'")
        return value

    return read


above_zero = number(int, 1, 2**31 - 1, "whole number above 0")
whole = number(int, 0, 2**63 - 1, "whole number from 0")
fraction = number(float, 0, 1, "number between 0 and 1")
positive = number(float, math.nextafter(0, 1), sys.float_info.max, "number above 0")


def _flag(text: str | None = None, **settings: Any) -> dict[str, Any]:
    return {"help": text, **settings}


_SHARED: dict[str, dict[str, Any]] = {
    "--cfg": _flag("Darknet cfg file; not needed for .pt, .safetensors, exported and shipped models", metavar="FILE"),
    "--weights": _flag(
        ".weights, .pt, .safetensors, .onnx, .xml or .torchscript file, or the name of a shipped model, such as scenes",
        metavar="FILE",
    ),
    "--names": _flag(
        "class names, one per line, or a .data file with 'names'; default: the model file's, or class 0, ...",
        metavar="FILE",
    ),
    "--backend": _flag(
        "engine that runs the model; default auto: for exported models by extension; for others, on a CPU, the fastest "
        "installed engine if there are enough images to make up for its start-up time, else PyTorch",
        default="auto",
    ),
    "--ema": _flag("use the EMA weights of a training checkpoint", action="store_true"),
    "--trust-pickle": _flag(
        "read .pt files with pickle, which runs any code in them; use it only for files you trust", action="store_true"
    ),
    "--partial": _flag("accept weights that match the cfg only partially", action="store_true"),
    "--img-size": _flag(
        "input size: N (square) or WIDTH HEIGHT; default: the cfg's",
        type=above_zero,
        nargs="+",
        default=(),
        metavar="N",
    ),
    "--batch-size": _flag("images per batch, default %(default)s", type=above_zero, default=1, metavar="N"),
    "--letter-box": _flag(
        "1: keep the aspect ratio, 0: stretch; default: the cfg's letter_box", type=int, choices=(0, 1)
    ),
    "--resize": _flag(
        "interpolation: the original's or OpenCV's, default %(default)s", choices=KERNELS, default=KERNELS[0]
    ),
    "--conf-thres": _flag("confidence threshold, default %(default)s", type=fraction, default=0.25, metavar="T"),
    "--iou-thres": _flag("NMS IoU threshold, default %(default)s", type=fraction, default=0.45, metavar="T"),
    "--max-det": _flag(
        "maximum number of detections per image, default %(default)s", type=above_zero, default=1000, metavar="N"
    ),
    "--augment": _flag("test-time augmentation: run on the mirrored image too", action="store_true"),
    "--single-cls": _flag("treat all classes as one", action="store_true"),
    "--device": _flag("cpu, mps, or a CUDA index such as 0; default: a GPU if there is one", default=""),
    "--half": _flag(
        "use 16-bit floats: on a GPU, or with OpenVINO on a CPU with bfloat16 instructions", action="store_true"
    ),
    "--save-txt": _flag("save labels/*.txt: class, centre and size relative to the image", action="store_true"),
    "--save-conf": _flag("append the score to each line of --save-txt", action="store_true"),
    "--no-save": _flag(action="store_true"),
    "--no-plots": _flag("do not draw charts and images", action="store_true"),
    "--project": _flag("parent of the run folders, default %(default)s", metavar="DIR"),
    "--name": _flag("name of the run folder, default exp, then exp2, ...", default="exp"),
    "--exist-ok": _flag("write into an existing run folder", action="store_true"),
}
_ALIASES = {"--no-save": ("--nosave",), "--no-plots": ("--noplots",)}


class AddFlag(Protocol):
    """A function that adds a flag; settings not given are those of the shared flag of that name, if there is one."""

    def __call__(self, *names: str, **settings: Any) -> argparse.Action: ...


def flags_of(parser: argparse._ActionsContainer) -> AddFlag:
    """Return a function like `parser.add_argument` that needs only the name of a shared flag."""

    def add(*names: str, **settings: Any) -> argparse.Action:
        spellings = (*names, *_ALIASES.get(names[0], ()))
        return parser.add_argument(*spellings, **{**_SHARED.get(names[0], {}), **settings})

    return add


def input_size(img_size: Sequence[int]) -> tuple[int, int] | None:
    """Return width and height of the --img-size values, None without any. Raises InputError for more than two."""
    if len(img_size) > 2:
        raise InputError(f"--img-size: found {len(img_size)} numbers, expected one, or width and height")
    return (img_size[0], img_size[-1]) if img_size else None


def options_from(record: type[_Record], parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> _Record:
    """Return the parsed flags as a frozen record with a field for each flag; lists become tuples."""
    values = vars(parser.parse_args(arguments))
    return record(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})

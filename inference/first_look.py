"""The shipped model and images, and the commands to try after a first run."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from inference.model import ModelFlags
from utils.cli import PACKAGE, as_typed
from utils.errors import InputError

Flags = TypeVar("Flags", bound=ModelFlags)

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = "scenes"
SAMPLES = ROOT / "data" / "samples"


def with_shipped_model(flags: Flags) -> Flags:
    """Return the flags, naming the shipped model if they name none. Raises InputError for a cfg without weights."""
    if flags.weights is not None:
        return flags
    if flags.cfg is not None:
        raise InputError("--weights is required: expected a .weights, .pt, .safetensors or exported model file")
    print(
        f"no --cfg and --weights: using weights/{SHIPPED}.weights, a small detector for generated scenes",
        flush=True,
    )
    return dataclasses.replace(flags, weights=SHIPPED)


@dataclass(frozen=True)
class Suggestion:
    """A command to try.

    what: description.
    script: a script and its flags, run from the project's root.
    extra: optional dependencies that it needs, as in `pip install cspyolo[extra]`.
    """

    what: str
    script: str
    extra: str = ""


STEPS = (
    Suggestion("your image, folder, clip or camera (0)", "detect.py --source my.jpg"),
    Suggestion(
        "your Darknet model", "detect.py --cfg my.cfg --weights my.weights --names my.names --source my.jpg --save-json"
    ),
    Suggestion("a video, also saving its boxes as a table", "detect.py --source data/samples/scenes.mp4 --save-csv"),
    Suggestion(
        "train for a minute on generated scenes, or on your own with --data my.data",
        "train.py --cfg cfg/cspdensenetb-ref-prn.cfg --img-size 96 --batch-size 4 --subdivisions 1 --iterations 20",
    ),
    Suggestion("export to ONNX", "export.py --weights scenes --include onnx --out runs/scenes", "export"),
    Suggestion("a web page", "serve.py", "serve"),
)


def next_steps() -> str:
    """Return the steps as typed here: with the current interpreter from the root of a clone, else with the command cspyolo."""
    python, elsewhere = interpreter(), not PACKAGE and Path.cwd() != ROOT
    lines = ["What to try next" + (f", in {ROOT}:" if elsewhere else ":")]
    for step in STEPS:
        if PACKAGE:
            install = f'pip install "cspyolo[{step.extra}]"'
            command = re.sub(r" (cfg|data)/", lambda folder: f" {ROOT}/{folder[1]}/", as_typed(step.script))
        else:
            install, command = f"{python} -m pip install -r requirements-{step.extra}.txt", f"{python} {step.script}"
        lines += [f"  {step.what}{f'   (after {install})' if step.extra else ''}", f"    {command}"]
    return "\n".join(lines)


def interpreter() -> str:
    """Return the command that starts this Python from the project's root."""
    found = shutil.which("python")
    if found and Path(found).parent.samefile(Path(sys.executable).parent):
        return "python"
    here = Path(sys.executable)
    return str(here.relative_to(ROOT)) if here.is_relative_to(ROOT) else str(here)

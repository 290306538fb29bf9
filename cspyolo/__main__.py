"""Run, train and ship Darknet YOLO models.

examples:
  cspyolo detect --cfg yolov4.cfg --weights yolov4.weights --names coco.names --source street.jpg
  cspyolo train --cfg my.cfg --data my.data
  cspyolo test --cfg my.cfg --weights my.weights --data my.data
  cspyolo export --cfg my.cfg --weights my.weights --include onnx
  cspyolo COMMAND --help
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.cli import EXIT_BAD_INPUT, PACKAGE, run_script
from utils.version import VERSION

# Command -> module with its `main`, help text.
COMMANDS = {
    "detect": ("detect", "find objects in images, videos, cameras and streams"),
    "train": ("train", "train the network of a cfg"),
    "test": ("test", "measure mAP, accuracy and speed; check a dataset"),
    "info": ("info", "show the layer table, BFLOPs, parameters and unused keys of a cfg"),
    "convert": ("convert", "convert weights and labels, compare models, download published weights"),
    "export": ("export", "export to ONNX, OpenVINO or TorchScript"),
    "serve": ("serve", "serve a model with a web page and a JSON endpoint"),
    "darknet": ("darknet", "accept the original program's command lines: cspyolo darknet detector test ..."),
    "compose": ("compose.__main__", "write cfgs from backbones and heads"),
}


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="cspyolo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"cspyolo {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for name, (_, text) in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False, prefix_chars="\0").add_argument("rest", nargs="*")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command with the arguments after its name and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = parse_arguments(given[:1]).command
    module = importlib.import_module(PACKAGE + COMMANDS[command][0])
    return run_script(module.main, given[1:], bad_input=getattr(module, "BAD_INPUT", EXIT_BAD_INPUT))


def darknet() -> int:
    """Run the command `darknet`: the original program if PATH has one elsewhere, else `cspyolo darknet`."""
    here = Path(sys.argv[0]).resolve().parent
    folders = [each for each in os.environ.get("PATH", "").split(os.pathsep) if each and Path(each).resolve() != here]
    original = shutil.which("darknet", path=os.pathsep.join(folders))
    if original:
        os.execv(original, [original, *sys.argv[1:]])
    return main(["darknet", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

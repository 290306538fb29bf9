"""Write the cfgs of the catalog, compare them with the committed files, or combine any backbone and head.

examples:
  python -m compose
  python -m compose --check
  python -m compose --pair vovnet39 panet-spp --img-size 512 --out my
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from compose.catalog import MODELS, Model, compose_text
from compose.training import coco, imagenet
from utils.cli import EXIT_FAILED, EXIT_OK, run_script, script_parser
from utils.errors import InputError
from utils.files import write_text

RENAMED = {"prn31": "prn3l", "efm-pelee": "efm", "efm-ref": "efm", "gfm-pelee": "gfm"}
"""Renamed parts of names, old to new; --pair and NAME still accept the old ones."""


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = script_parser("python -m compose", __doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="models of the catalog (default: all)")
    parser.add_argument("--pair", nargs=2, metavar=("BACKBONE", "HEAD"), help="write BACKBONE-HEAD.cfg")
    parser.add_argument("--img-size", type=int, default=416, metavar="N", help="input size of --pair in pixels")
    parser.add_argument("--out", type=Path, default=Path("cfg"), metavar="DIR", help="folder to write to, default cfg")
    parser.add_argument("--check", action="store_true", help="compare with the existing files and write nothing")
    options = parser.parse_args(arguments)
    if options.pair and options.names:
        parser.error("NAME and --pair cannot be combined")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    stale = False
    for name, model in _chosen(options).items():
        path, text = options.out / f"{name}.cfg", compose_text(name, model)
        if not options.check:
            write_text(path, text)
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"{path}: differs from what python -m compose writes")
            stale = True
    return EXIT_FAILED if stale else EXIT_OK


def _chosen(options: argparse.Namespace) -> Mapping[str, Model]:
    if options.pair:
        backbone, head = map(_current, options.pair)
        training = imagenet if head.startswith("classifier") else coco
        return {f"{backbone}-{head}": Model(backbone, head, options.img_size, training)}
    names = [_current(name) for name in options.names]
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise InputError(f"no model {unknown[0]!r} in the catalog, expected one of: {', '.join(MODELS)}")
    return {name: MODELS[name] for name in names or MODELS}


def _current(name: str) -> str:
    """The current name of a model or head that may have been renamed."""
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name


if __name__ == "__main__":
    sys.exit(run_script(main))

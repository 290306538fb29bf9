"""Draws a data set of scenes: images, labels, names and the .data file.

python -m data.scenes --out runs/shapes --count 200
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data.scenes.folder import make_scenes
from utils.cli import EXIT_OK, above_zero, run_script, script_parser, whole


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = script_parser("python -m data.scenes", __doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    add(
        "--count",
        type=above_zero,
        default=500,
        metavar="N",
        help="images to train on, default 500; a fifth more for val",
    )
    add("--img-size", type=above_zero, default=416, metavar="N", help="side of the images in pixels, default 416")
    add("--seed", type=whole, default=0, help="default 0")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    print(make_scenes(options.out, options.count, options.seed, options.img_size))
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(run_script(main))

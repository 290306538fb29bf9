"""Turn one file format into another: `python convert.py labels --from A --to B`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from data.sources import open_data
from data.writing import write_data
from utils.cli import EXIT_OK, run_script


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="convert.py", description=__doc__)
    commands = parser.add_subparsers(title="what to convert", required=True, metavar="COMMAND")
    _add_labels(commands)
    options = parser.parse_args(arguments)
    return int(options.run(options))


def _add_labels(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "a data set from one label format into another; the source is left as it is"
    parser = commands.add_parser("labels", help=text, description=text)
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="A",
        help=".data (Darknet), .json (COCO), .yaml (Ultralytics), a Pascal VOC folder, a folder or list of pictures",
    )
    parser.add_argument(
        "--to",
        dest="target",
        required=True,
        metavar="B",
        help="what to write, by its extension: .data, .json, .yaml; a name without extension is a Pascal VOC folder",
    )
    parser.add_argument("--names", help="names file to use in place of the data set's own names")
    parser.add_argument("--copy", action="store_true", help="copy the pictures where they are needed, default: links")
    parser.set_defaults(run=_labels)


def _labels(options: argparse.Namespace) -> int:
    written = write_data(open_data(options.source, names=options.names), options.target, copy=options.copy)
    print(f"{written.labels} labels of {written.pictures} pictures: {', '.join(map(str, written.files))}")
    for what, count in written.lost.items():
        print(f"not taken along: {count} {what}")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(run_script(main))

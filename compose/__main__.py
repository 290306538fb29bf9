"""`python -m compose [NAME ...] [--out cfg] [--check]`: write the cfgs of the catalog, or compare them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from compose.catalog import MODELS
from compose.write import compose_text
from utils.cli import EXIT_FAILED, EXIT_OK, run_script
from utils.errors import InputError
from utils.files import write_text


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m compose", description="Write the cfgs of the model families.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="models of the catalog; all of them by default")
    parser.add_argument("--out", type=Path, default=Path("cfg"), help="folder of the cfg files")
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in MODELS]
    if unknown:
        raise InputError(f"no model {unknown[0]!r} in the catalog, expected one of: {', '.join(MODELS)}")
    stale = []
    for name in options.names or MODELS:
        path = options.out / f"{name}.cfg"
        text = compose_text(MODELS[name])
        if not options.check:
            write_text(path, text)
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
    for path in stale:
        print(f"{path}: differs from the composer's text")
    return EXIT_FAILED if stale else EXIT_OK


if __name__ == "__main__":
    sys.exit(run_script(main))

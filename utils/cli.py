"""What every script shares: exit codes, logging to the console."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence

from utils.errors import InputError, RunError

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


def run_script(main: Callable[[Sequence[str] | None], int], arguments: Sequence[str] | None = None) -> int:
    """Run a script's `main` and turn its outcome into an exit code with one clear line on stderr.

    0 success, 1 the run failed, 2 bad input, 130 Ctrl-C.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.addLevelName(logging.WARNING, "warning")
    try:
        return main(arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except RunError as error:
        print(f"failed: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED

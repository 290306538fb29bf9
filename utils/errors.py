"""The errors that end a run, each with its exit code.

Scripts map them (utils/cli.py): a mistake of the user is exit code 2, a failed run is 1, Ctrl-C is 130. A bug of our own
is an AssertionError and keeps its traceback.
"""

from __future__ import annotations

from pathlib import Path


class InputError(Exception):
    """A mistake of the user: a bad cfg, weights file, label, image, video or flag.

    The message names the place, the value found and what was expected.
    """


class RunError(Exception):
    """A run that started properly and could not be finished."""


class DataLoadingError(RunError):
    """No more data can be loaded; the results so far are sound and worth saving."""


class CfgError(InputError):
    """A mistake in a cfg-like file, reported as ``file:line: text``."""

    def __init__(self, path: str | Path, line: int | None, text: str) -> None:
        self.path = str(path)
        self.line = line
        super().__init__(f"{self.path}:{line}: {text}" if line is not None else f"{self.path}: {text}")


class HeadWidthError(CfgError):
    """A head that needs another width of the layer before it, which is cfg section number `section`: `key` must be `width`."""

    def __init__(self, error: CfgError, section: int, key: str, width: int) -> None:
        Exception.__init__(self, str(error))
        self.path, self.line = error.path, error.line
        self.section, self.key, self.width = section, key, width

"""The errors that end a run.

Scripts turn them into exit codes (utils/cli.py): 2 for invalid user input, 1 for a failed run, 130 for Ctrl-C. A bug in
the project itself is an AssertionError and keeps its traceback.
"""

from __future__ import annotations

from pathlib import Path


class InputError(Exception):
    """Invalid user input: a bad cfg, weights file, label, image, video or flag.

    The message names the place, the value found and the expected one.
    """


class RunError(Exception):
    """A run that started properly but could not be finished."""


class DataLoadingError(RunError):
    """No more data can be loaded; the results so far are valid and worth saving."""


class CfgError(InputError):
    """An error in a cfg-like file, reported as `file:line: text`."""

    def __init__(self, path: str | Path, line: int | None, text: str) -> None:
        self.path = str(path)
        self.line = line
        super().__init__(f"{self.path}:{line}: {text}" if line is not None else f"{self.path}: {text}")


class HeadWidthError(CfgError):
    """A head that needs another width of the layer before it: `key` of cfg section number `section` must be `width`."""

    def __init__(self, error: CfgError, section: int, key: str, width: int) -> None:
        Exception.__init__(self, str(error))
        self.path, self.line = error.path, error.line
        self.section, self.key, self.width = section, key, width

"""Imports of optional packages."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from utils.errors import InputError

_TELEMETRY = {"openvino": ("openvino_telemetry",)}
"""Package -> packages that it uses, if they are installed, to report its use to its makers."""


def is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def need(module: str, package: str) -> Any:
    """Import and return a module. Raises InputError with the pip command if the package is not installed."""
    for telemetry in _TELEMETRY.get(module, ()):
        sys.modules.setdefault(telemetry, None)  # type: ignore[arg-type] # importing it fails, so nothing is sent
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != module.split(".")[0]:
            raise
        raise InputError(f"this needs the package {package}: pip install {package}") from None

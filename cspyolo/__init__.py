"""Run, train and ship Darknet YOLO models from Python.

>>> from cspyolo import YOLO
>>> model = YOLO("yolov4.cfg", "yolov4.weights", names="coco.names")
>>> for result in model("street.jpg"):
...     print(result.verbose(), result.boxes.xyxy)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from utils.errors import InputError, RunError
from utils.version import VERSION as __version__

if TYPE_CHECKING:
    from cspyolo.results import Boxes, Probs, Results
    from cspyolo.yolo import YOLO

__all__ = ["YOLO", "Boxes", "InputError", "Probs", "Results", "RunError", "__version__"]

_HOMES = {"YOLO": "cspyolo.yolo", "Boxes": "cspyolo.results", "Probs": "cspyolo.results", "Results": "cspyolo.results"}


def __getattr__(name: str) -> Any:
    """Import a public name on first access, so that `cspyolo --help` does not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cspyolo' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)

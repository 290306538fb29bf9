"""Entry points for torch.hub.load.

>>> model = torch.hub.load(".", "yolo", "yolov4.cfg", "yolov4.weights", source="local")
>>> network = torch.hub.load(".", "darknet", source="local", cfg="yolov4.cfg", weights="yolov4.weights")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inference.predictor import Model
from models.network import Network

if TYPE_CHECKING:
    from cspyolo import YOLO

dependencies = ["torch", "numpy", "cv2"]


def yolo(*arguments: Any, **options: Any) -> YOLO:
    """Open a model for any source of images; see cspyolo.YOLO."""
    from cspyolo import YOLO

    return YOLO(*arguments, **options)


def darknet(cfg: str, weights: str | None = None, device: str = "cpu", **size: Any) -> Network:
    """Build the network of a Darknet cfg and load a .weights file into it; see models.load."""
    from models.load import load

    return load(cfg, weights, device, **size)


def predictor(cfg: str | None = None, weights: str | None = None, device: str = "cpu", **options: Any) -> Model:
    """Open a detector or classifier from any model file; see inference.model.open_model."""
    from inference.model import open_model

    return open_model(weights, cfg=cfg, device=device, **options)

"""Entry points for torch.hub.load.

>>> network = torch.hub.load(".", "darknet", source="local", cfg="yolov4.cfg", weights="yolov4.weights")
>>> model = torch.hub.load(".", "predictor", source="local", cfg="yolov4.cfg", weights="yolov4.weights")
>>> found = model.predict([image])
"""

from __future__ import annotations

from typing import Any

from inference.predictor import Model
from models.network import Network

dependencies = ["torch", "numpy", "cv2"]


def darknet(cfg: str, weights: str | None = None, device: str = "cpu", **size: Any) -> Network:
    """The network of a Darknet cfg, with weights from a .weights file; see models.load."""
    from models.load import load

    return load(cfg, weights, device, **size)


def predictor(cfg: str | None = None, weights: str | None = None, device: str = "cpu", **options: Any) -> Model:
    """A detector or classifier from any model file, ready for images; see inference.model.open_model."""
    from inference.model import open_model

    return open_model(weights, cfg=cfg, device=device, **options)

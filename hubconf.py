"""Entry points for torch.hub.load.

>>> network = torch.hub.load(".", "darknet", source="local", cfg="yolov4.cfg", weights="yolov4.weights")
"""

from __future__ import annotations

from typing import Any

from models.network import Network

dependencies = ["torch", "numpy", "cv2"]


def darknet(cfg: str, weights: str | None = None, device: str = "cpu", **size: Any) -> Network:
    """The network of a Darknet cfg, with weights from a .weights file; see models.load."""
    from models.load import load

    return load(cfg, weights, device, **size)

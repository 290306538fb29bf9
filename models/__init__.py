"""Darknet networks: cfg text to plan, plan to network, network to weights and back.

>>> from models import load
>>> network = load("yolov4.cfg", "yolov4.weights")
"""

from models.load import load

__all__ = ["load"]

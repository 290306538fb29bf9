"""Darknet networks: parse a cfg into a plan, build the network, read and write its weights.

>>> from models import load
>>> network = load("yolov4.cfg", "yolov4.weights")
>>> backbone = features("cfg/csppeleenet.cfg", "csppeleenet.weights")
"""

from models.features import features
from models.load import load

__all__ = ["features", "load"]

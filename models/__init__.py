"""Darknet networks: cfg text to plan, plan to network, network to weights and back.

>>> from models import load, load_predictor
>>> network = load("yolov4.cfg", "yolov4.weights")
>>> found = load_predictor("yolov4.cfg", "yolov4.weights").predict([picture])
"""

from models.detector import Selection
from models.load import load, load_predictor
from models.predictor import Predictor

__all__ = ["Predictor", "Selection", "load", "load_predictor"]

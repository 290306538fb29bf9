"""ONNX models in OpenCV's dnn module."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from models.backends.session import Arrays, as_floats
from models.export.graph import INPUT
from models.export.metadata import Metadata
from models.export.onnx_metadata import read_onnx_metadata
from utils.errors import InputError


class OpenCvSession:
    """Raises InputError for a file that is no ONNX model of this program, or that this OpenCV cannot read."""

    def __init__(self, path: str | Path, device: torch.device) -> None:
        self.metadata = Metadata.from_pairs(read_onnx_metadata(path), str(path))
        self._place = str(path)
        try:
            self._net = cv2.dnn.readNetFromONNX(str(Path(path)))
        except cv2.error as error:
            raise InputError(f"{path}: OpenCV {cv2.__version__} refuses it: {error.err}") from None
        self.names = list(self._net.getUnconnectedOutLayersNames())

    def run(self, images: NDArray[np.float32]) -> Arrays:
        self._net.setInput(images, INPUT)
        try:
            return [as_floats(each) for each in self._net.forward(self.names)]
        except cv2.error as error:
            raise InputError(f"{self._place}: OpenCV {cv2.__version__} cannot run it: {error.err}") from None

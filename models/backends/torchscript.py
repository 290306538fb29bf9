"""TorchScript models in PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.backends.session import Arrays
from models.export.metadata import Metadata
from models.export.torchscript_file import read_torchscript


class TorchScriptSession:
    """Raises InputError for a file that is no TorchScript of this program."""

    def __init__(self, path: str | Path, device: torch.device) -> None:
        self._model, pairs = read_torchscript(path, device)
        self.metadata = Metadata.from_pairs(pairs, str(path))
        self._device = device

    def run(self, images: NDArray[np.float32]) -> Arrays:
        with torch.inference_mode():
            return [each.cpu().numpy() for each in self._model(torch.from_numpy(images).to(self._device))]

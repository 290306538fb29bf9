"""What every engine answers, whatever runs behind it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.export.metadata import Metadata

Arrays = list[NDArray[np.float32]]


class Session(Protocol):
    """A model loaded by an engine. metadata: what its file says of it."""

    metadata: Metadata

    def run(self, images: NDArray[np.float32]) -> Arrays:
        """Outputs of pictures (n, channels, height, width); n is the model's batch, if that is fixed."""
        ...


def as_floats(values: Any) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, np.float32)

"""Deterministic weights and inputs, from which the recordings of the original program were made.

This recipe reproduces the files of every recording bit for bit; the `meta` of a recording holds seed, gain, sizes, and CRC-32
sums to verify this.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable

import numpy as np

HEADER = (0, 2, 5, 0)  # major, minor, revision, seen

_SPANS = {  # kind -> (factor, offset) of uniform values in [0, 1)
    "biases": (0.2, -0.1),
    "rolling_mean": (0.2, -0.1),
    "scales": (0.5, 0.75),
    "rolling_variance": (1.0, 0.5),
    "shortcut_weights": (1.0, 0.25),
    "implicit_weights": (0.4, -0.2),
}


def weights_file(tensors: Iterable[tuple[str, int, int]], seed: int = 1, gain: float = 1.0) -> bytes:
    """Content of a .weights file, given (kind, count, fan_in) in file order as listed by Network.tensors().

    A single generator is used for the whole file; all arithmetic is in float32.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    parts = [struct.pack("<iiiQ", *HEADER)]
    for kind, count, fan_in in tensors:
        values = generator.random(count, dtype=np.float32)
        if kind == "weights":
            values = (values * np.float32(2) - np.float32(1)) * np.float32(gain * np.sqrt(6.0 / max(fan_in, 1)))
        else:
            factor, offset = _SPANS[kind]
            values = values * np.float32(factor) + np.float32(offset)
        parts.append(values.tobytes())
    return b"".join(parts)


def input_image(count: int, seed: int = 1) -> np.ndarray:
    """`count` float32 values in [0, 1), for the network's input in CHW order."""
    return np.random.Generator(np.random.PCG64(seed + 1000)).random(count, dtype=np.float32)


def sample_indices(count: int, stored: int) -> np.ndarray:
    """Flat indices of the values that a recording stores for an output of `count` values."""
    return np.arange(count) if count <= stored else (np.arange(stored, dtype=np.int64) * count) // stored


def canonical_sha1(cfg: bytes) -> str:
    """Hash of a published cfg, independent of comments and whitespace."""
    lines = [re.sub(r"\s+", "", line) for line in cfg.decode("utf8", "replace").replace("\r", "").split("\n")]
    return hashlib.sha1("\n".join(line for line in lines if line and line[0] not in "#;").encode()).hexdigest()

"""Recordings of the original's forward pass: reading them, regenerating their inputs, comparing outputs."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers.pooling import Maxpool
from models.network import Network
from models.plan import read_plan
from models.weights import load_weights
from tests.recipe import input_image, sample_indices, weights_file


@dataclass(frozen=True)
class Recording:
    """A run of the original.

    meta: how it was made.
    stats: by layer, mean, std, min, max, l2, number of non-finite values, number of outputs.
    """

    meta: dict[str, Any]
    stats: np.ndarray
    first: np.ndarray
    values: dict[int, np.ndarray]

    @classmethod
    def read(cls, path: Path) -> Recording:
        with np.load(path) as file:
            values = {int(name[4:]): file[name] for name in file.files if name.startswith("val_")}
            return cls(json.loads(str(file["meta"])), file["stats"], file["first8"], values)

    def network(self, cfg: Path, directory: Path) -> Network:
        """The network of `cfg` with the recording's weights, ready for inference."""
        resized = self.meta.get("resized")
        plan = read_plan(cfg, width=resized, height=resized)
        network = Network(plan)
        data = weights_file(network.tensors(), self.meta["seed"], self.meta["gain"])
        assert zlib.crc32(data) == self.meta["weights_crc32"], "the order of the stored tensors differs"
        path = directory / "recipe.weights"
        path.write_bytes(data)
        load_weights(network, path)
        path.unlink()
        return network.eval().requires_grad_(False)

    def image(self, network: Network) -> Tensor:
        shape = network.plan.input
        image = input_image(shape.outputs, self.meta["seed"])
        assert zlib.crc32(image.tobytes()) == self.meta["input_crc32"]
        return torch.from_numpy(image).view(1, shape.channels, shape.height, shape.width)

    def holds(self, layer: int) -> bool:
        """Whether the layer has an output in the original ([cost] has none)."""
        return bool(np.isfinite(self.stats[layer, 6]))

    def errors(self, layer: int, output: Tensor) -> float:
        """Largest difference from a layer's recorded samples, relative to the larger of value and standard deviation."""
        mine = output.flatten().numpy()
        recorded = self.values.get(layer, self.first[layer])
        assert mine.size == int(self.stats[layer, 6]), f"layer {layer} has {mine.size} values"
        if layer in self.values:
            mine = mine[sample_indices(mine.size, len(recorded))]
        count = min(len(mine), len(recorded))
        mine, recorded = mine[:count], recorded[:count]
        return float((np.abs(mine - recorded) / np.maximum(np.abs(recorded), self.scale(layer))).max())

    def scale(self, layer: int) -> float:
        """Standard deviation of a layer's output, or its magnitude if all values are equal."""
        mean, std, *_ = (float(value) for value in self.stats[layer])
        return std if std > 1e-6 * abs(mean) else max(abs(mean), 1e-12)

    def statistics_error(self, layer: int, output: Tensor) -> float:
        """Like `errors`, for mean, standard deviation, minimum and maximum."""
        values = output.double()
        mine = (values.mean(), values.std(correction=0), values.min(), values.max())
        pairs = zip(mine, (float(value) for value in self.stats[layer, [0, 1, 2, 3]]), strict=True)
        return max(abs(float(a) - b) / max(abs(b), self.scale(layer)) for a, b in pairs)


def all_outputs(network: Network, images: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield (index, output in the original's layout) for every layer."""
    yield from network.outputs(images, range(len(network.plan.steps))).items()


def pool_as_the_vector_code(network: Network) -> None:
    """Imitate gemm.c forward_maxpool_layer_avx, which was used to make the recordings.

    With stride 1 it processes eight columns at once while at least 8 + size are left, and skips a column of the window for
    all eight if it lies outside the input for the first one. The scalar code, the GPU code and this project do not do this.
    """
    for layer in network.layers:
        if isinstance(layer, Maxpool) and layer.window.strides_yx == (1, 1) and layer.blur is None:
            layer.register_forward_hook(_spoil_first_columns)


def _spoil_first_columns(layer: Maxpool, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    size, near = layer.window.size, layer.window.border // 2
    if output.shape[3] <= 8 + size - 1 or near == 0:
        return output
    spoiled = output.clone()
    rows = F.pad(inputs[0], (0, 0, near, layer.window.border - near), value=-torch.inf)
    spoiled[..., :8] = F.max_pool2d(rows, (size, size - near), 1)[..., :8]
    return spoiled

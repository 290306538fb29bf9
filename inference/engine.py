"""Run the network of a cfg and weights on an inference engine when that pays off."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference import compile_cache
from inference.backends import Arrays, OnnxRuntime, OpenVino, Runner, Wait, as_batch, start_each
from models.export.build import ExportOptions
from models.export.onnx import onnx_bytes
from models.export.verify import difference
from models.layers.base import Layer
from models.network import Network
from utils.errors import InputError, RunError
from utils.packages import is_installed
from utils.version import VERSION

logger = logging.getLogger(__name__)

OPENVINO, ONNX_RUNTIME = "openvino", "onnxruntime"
ENGINES = (OPENVINO, ONNX_RUNTIME)  # fastest first

# Cost of opening an engine, in billions of operations that must be run to recoup it: constant, and per million parameters.
# Measured with OpenVINO on two cores for four models, see docs/deployment.md.
_OPENING, _OPENING_PER_MILLION = 300.0, 35.0

# Largest difference of float32 outputs, relative to their size. Rounding causes up to 3e-5 in trained networks and 3e-4 in
# the deepest one with random weights; a layer that is computed differently causes more than 0.1.
TOLERANCE = 1e-3
# Largest mean difference of bfloat16 outputs, in standard deviations; trained networks reach 0.03.
HALF_TOLERANCE = 0.1


def default_engine() -> str | None:
    """Return the fastest installed engine, or None."""
    if not is_installed("onnx"):
        return None
    return next((name for name in ENGINES if is_installed(name)), None)


class EngineNetwork:
    """Drop-in replacement for a folded network on the CPU that can hand the work to an engine.

    Calling it with images (n, channels, height, width) returns the outputs of the heads. The engine's outputs for the
    first image are compared with PyTorch's; if they differ, or the engine lacks a layer, a warning says so and PyTorch
    runs the network. Unless `required`, the engine is opened once the images so far plus those announced by `expect`
    reach `worth`. This depends only on the cfg and the number of images, so repeated runs give identical bytes.

    name: one of ENGINES.
    device: device of the engine.
    required: open the engine at once, and raise InputError or RunError instead of warning.
    half: compute in bfloat16, with OpenVINO.
    cache: keep the compiled model on disk.
    """

    def __init__(
        self,
        network: Network,
        name: str,
        device: torch.device,
        *,
        required: bool = False,
        half: bool = False,
        cache: bool = False,
    ) -> None:
        assert network.is_folded
        self.torch, self.plan = network, network.plan
        self.name, self._device, self._required, self._half = name, device, required, half
        self._cache = cache
        self._runner: Runner | None = None
        self._settled = False  # the engine has been compared with PyTorch, or given up
        self._images = 0
        self.worth = math.inf  # number of images from which opening the engine pays off
        if operations := sum(step.cost.operations for step in self.plan.steps):
            millions = sum(each.numel() for each in network.parameters()) / 1e6
            self.worth = (_OPENING + _OPENING_PER_MILLION * millions) / (operations / 1e9)
        if required:
            self._open()

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.torch)

    @property
    def is_open(self) -> bool:
        return self._runner is not None

    @property
    def engine(self) -> str:
        """See Model.engine."""
        return f"{self._runner.engine if self._runner else 'PyTorch'}, {'bf16' if self._half else 'fp32'}"

    def expect(self, images: int | None, *, parallel: bool = False) -> None:
        """Announce the number of images to come, None if unknown. parallel: several at a time, by `start`."""
        if isinstance(self._runner, OpenVino):
            if (images is None or images >= self.worth) and self._runner.prefer(parallel):
                self._settled = False
        elif not self._settled and not self.is_open and (images is None or self._images + images >= self.worth):
            self._open(parallel)

    @property
    def streams(self) -> int:
        """Number of images that the engine processes at a time."""
        return self._runner.streams if isinstance(self._runner, OpenVino) else 1

    def start(self, images: Tensor) -> Wait:
        """Start a pass on an engine with several `streams`."""
        if not self._settled:
            self._compare(images[:1].numpy())
        if not isinstance(self._runner, OpenVino):  # `_compare` gave it up
            begin = time.perf_counter()
            outputs = self(images)
            seconds = time.perf_counter() - begin
            return lambda: ((outputs,), seconds)
        self._images += len(images)
        return start_each(self._runner, images)

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        if not self.is_open:
            self.expect(len(images))
        self._images += len(images)
        shape = self.plan.input
        fits = len(images) and images.shape[1:] == (shape.channels, shape.height, shape.width)
        runner = self._runner  # another thread may give it up
        if runner is None or not fits:
            return self.torch(images)
        arrays = np.ascontiguousarray(images.float().cpu().numpy())
        if not self._settled:
            self._compare(arrays[:1])
            return self(images)
        # One image at a time: on a CPU a batch takes longer per image because it does not fit the caches.
        found = [runner.run(arrays[place : place + 1]) for place in range(len(arrays))]
        return as_batch(found)

    def _open(self, parallel: bool = False) -> None:
        place = self.plan.cfg.path
        try:
            if self.name == OPENVINO:
                content = _content_hash(self.torch) if self._cache else None
                self._runner = OpenVino(
                    self._model, place, self._device, half=self._half, parallel=parallel, content=content
                )
            else:
                self._runner = OnnxRuntime(self._model(), place, self._device)
        except InputError as error:
            if self._required:
                raise
            self._give_up(str(error))

    def _model(self) -> bytes:
        return onnx_bytes(self.torch, ExportOptions(outputs="raw", batch=1))

    def _compare(self, images: NDArray[np.float32]) -> None:
        self._settled = True
        with torch.inference_mode():
            wanted = [each.numpy() for each in self.torch(torch.from_numpy(images))]
        error, limit = self._error(images, wanted), HALF_TOLERANCE if self._half else TOLERANCE
        if not error <= limit and isinstance(self._runner, OpenVino) and self._runner.cached:
            compile_cache.remove(self._runner.cached)  # it may have been written by an earlier version of this program
            self._runner.compile(bool(self._runner.parallel))
            error = self._error(images, wanted)
        if not error <= limit:
            text = f"{self.plan.cfg.path}: outputs of {self.name} differ from PyTorch's by {error:.2g}, more than {limit:g}"
            if self._required:
                raise RunError(f"{text}; use --backend torch")
            self._give_up(text)

    def _error(self, images: NDArray[np.float32], wanted: Arrays) -> float:
        assert self._runner is not None
        found = self._runner.run(images)
        return _mean_difference(found, wanted) if self._half else difference(found, wanted, "raw")

    def _give_up(self, reason: str) -> None:
        logger.warning("%s; PyTorch runs the network instead", reason)
        self._settled, self._runner = True, None


def _content_hash(network: Network) -> str:
    """Return a hash of everything that a network's outputs depend on."""
    shape = network.plan.input
    found = hashlib.sha256(repr((VERSION, network.plan.cfg.text, shape)).encode("utf-8", "surrogateescape"))
    for name, tensor in network.state_dict().items():
        found.update(repr((name, tensor.shape, tensor.dtype)).encode())
        found.update(np.ascontiguousarray(tensor.numpy()).data)
    return found.hexdigest()


def _mean_difference(found: Arrays, wanted: Arrays) -> float:
    """Return the mean difference in standard deviations of the tensor, for the tensor where it is largest."""
    pairs = zip(found, wanted, strict=True)
    return max(float(np.abs(one - other).mean() / max(other.std(), 1e-12)) for one, other in pairs)

"""Networks of cfg and weights on an inference engine, where that pays."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference import compile_cache
from inference.backends import Arrays, OnnxRuntime, OpenVino, Runner, joined, start_each
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
ENGINES = (OPENVINO, ONNX_RUNTIME)  # that run networks, the fastest first

# What opening an engine costs, in billions of operations that PyTorch could be spared in that time: a constant part, and one
# for every million parameters. Measured with OpenVINO on two cores for four models, see docs/deployment.md.
_OPENING, _OPENING_PER_MILLION = 300.0, 35.0

# Outputs in float32 may differ by this, relative to their size. Rounding: at most 3e-5 in trained networks and 3e-4 in the
# deepest one with random weights; a layer that is computed otherwise: above 0.1.
TOLERANCE = 1e-3
# Outputs in bfloat16 may differ by this in the mean, in standard deviations (up to 0.03 in trained networks).
HALF_TOLERANCE = 0.1


def default_engine() -> str | None:
    """The fastest engine that is installed; None without any."""
    if not is_installed("onnx"):
        return None
    return next((name for name in ENGINES if is_installed(name)), None)


class EngineNetwork:
    """Stands for a folded network on the CPU, which an engine takes over.

    Called with images (n, channels, height, width) it returns the outputs of the heads. On its first image the engine is compared
    with PyTorch; if it differs, or cannot express a layer, a warning says so and PyTorch stays.

    name: one of ENGINES. device: the engine's own. required: open it at once, and raise InputError or RunError instead of
    warning; otherwise it is opened when the images so far, and those announced by `expect`, are at least `worth`. This depends
    on the cfg and the number of images alone, so the same run gives the same bytes. half: compute in bfloat16, with OpenVINO.
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
        self._settled = False  # the engine was compared with PyTorch, or has been given up
        self._images = 0
        self.worth = math.inf  # images for which opening the engine pays
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
        """As Model.engine."""
        return f"{self._runner.engine if self._runner else 'PyTorch'}, {'bf16' if self._half else 'fp32'}"

    def expect(self, images: int | None, *, parallel: bool = False) -> None:
        """Announce how many images follow; None: no end is known. parallel: by `start`, several at a time."""
        if isinstance(self._runner, OpenVino):
            if (images is None or images >= self.worth) and self._runner.prefer(parallel):
                self._settled = False
        elif not self._settled and not self.is_open and (images is None or self._images + images >= self.worth):
            self._open(parallel)

    @property
    def streams(self) -> int:
        """Images that the engine works on at a time."""
        return self._runner.streams if isinstance(self._runner, OpenVino) else 1

    def start(self, images: Tensor) -> Callable[[], tuple[tuple[Tensor, ...], float]]:
        """Begin a pass in an engine of several `streams`.

        The function returned waits for the outputs and the seconds from the beginning to the end.
        """
        if not self._settled:
            self._compare(images[:1].numpy())
        if not isinstance(self._runner, OpenVino):  # it has been given up
            begin = time.perf_counter()
            outputs = self(images)
            seconds = time.perf_counter() - begin
            return lambda: (outputs, seconds)
        self._images += len(images)
        return start_each(self._runner, images)

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        if not self.is_open:
            self.expect(len(images))
        self._images += len(images)
        shape = self.plan.input
        fits = len(images) and images.shape[1:] == (shape.channels, shape.height, shape.width)
        if self._runner is None or not fits:
            return self.torch(images)
        arrays = np.ascontiguousarray(images.float().cpu().numpy())
        if not self._settled:
            self._compare(arrays[:1])
            return self(images)
        # One image at a time: on a processor, a batch takes longer per image, because it does not fit the caches.
        found = [self._runner.run(arrays[place : place + 1]) for place in range(len(arrays))]
        return joined(found)

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
            compile_cache.remove(self._runner.cached)  # it may be of an earlier version of this program
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
    """A hash of everything that the outputs of a network depend on."""
    shape = network.plan.input
    found = hashlib.sha256(repr((VERSION, network.plan.cfg.text, shape)).encode("utf-8", "surrogateescape"))
    for name, tensor in network.state_dict().items():
        found.update(repr((name, tensor.shape, tensor.dtype)).encode())
        found.update(np.ascontiguousarray(tensor.numpy()).data)
    return found.hexdigest()


def _mean_difference(found: Arrays, wanted: Arrays) -> float:
    """Mean difference of values in standard deviations of their tensor, the largest of all tensors."""
    pairs = zip(found, wanted, strict=True)
    return max(float(np.abs(one - other).mean() / max(other.std(), 1e-12)) for one, other in pairs)

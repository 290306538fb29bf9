"""Networks on a CUDA device whose passes are replayed as CUDA graphs: one launch instead of one per layer."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from models.layers.base import Layer
from models.network import Network

logger = logging.getLogger(__name__)

_EAGER = 2  # passes of a shape before it is captured; capturing does not pay off for a single image
_SHAPES = 4  # graphs that are kept; each holds the memory of a pass

Pass = Callable[[Tensor], tuple[Tensor, ...]]


class GraphedNetwork:
    """Drop-in replacement for a folded network on a CUDA device; same call, same results."""

    def __init__(self, network: Network) -> None:
        assert network.is_folded
        self.torch, self.plan = network, network.plan
        self._seen: dict[torch.Size, int] = {}
        self._passes: OrderedDict[torch.Size, Pass] = OrderedDict()

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.torch)

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        shape = images.shape
        self._seen[shape] = self._seen.get(shape, 0) + 1
        if self._seen[shape] <= _EAGER:
            return self.torch(images)
        if shape not in self._passes:
            self._passes[shape] = self._make(images)
            if len(self._passes) > _SHAPES:
                self._seen.pop(self._passes.popitem(last=False)[0])
        self._passes.move_to_end(shape)
        return self._passes[shape](images)

    def _make(self, images: Tensor) -> Pass:
        try:
            return captured(self.torch, images)
        except RuntimeError as error:  # an operation synchronizes with the device, or no memory for another graph
            text = "%s: its passes cannot be captured as a CUDA graph and run layer by layer (%s)"
            logger.warning(text, self.plan.cfg.path, str(error).partition("\n")[0])
            return self.torch


@torch.inference_mode()
def captured(network: Network, images: Tensor) -> Pass:
    """Capture a pass over images of this shape as a CUDA graph. Raises RuntimeError if that is not possible."""
    own = images.clone()
    with torch.cuda.device(images.device):
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # cuDNN chooses its algorithms before the capture
            network(own)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = network(own)

    def replay(images: Tensor) -> tuple[Tensor, ...]:
        own.copy_(images)
        graph.replay()
        return tuple(output.clone() for output in outputs)  # the next pass overwrites them

    return replay

"""A plan as a PyTorch module; it runs layer by layer without knowing any layer type."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from models.heads.base import Head
from models.layers.base import Layer, Step, Stored
from models.plan import Plan
from utils.errors import InputError


class Network(nn.Module):
    """The network that a cfg describes.

    Call it with images (n, channels, height, width), RGB in [0, 1]. It returns the outputs of its heads in cfg order (of its
    last layer, if it has no heads), each (n, channels, height, width), as in the original.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.layers = nn.ModuleList(step.section.build(step.site) for step in plan.steps)
        for layer in self:
            layer.connect(list(self))
        self.seen = 0
        self.version = (0, 2, 5)  # weights file version, as the original writes it
        self.is_folded = False
        self._expires = last_reads(plan)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)  # type: ignore[arg-type]

    def head(self, step: Step) -> Head:
        """The module of one of the plan's heads. It must have boxes or a loss."""
        layer = self.layers[step.index]
        assert isinstance(layer, Head)
        return layer

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        heads = [step.index for step in self.plan.heads]
        found = self._run(images, heads)
        return tuple(found[index] for index in heads)

    def head_inputs(self, images: Tensor) -> tuple[tuple[Tensor, ...], ...]:
        """The inputs of each head; the losses are defined with respect to these."""
        sources = [step.sources for step in self.plan.heads]
        found = self._run(images, {index for group in sources for index in group}, stop_at_heads=True)
        return tuple(tuple(found[index] for index in group) for group in sources)

    def outputs(self, images: Tensor, layers: Collection[int]) -> dict[int, Tensor]:
        """Outputs of chosen layers, with the same values in the same order as the original's layer outputs.

        Raises InputError for a layer index that does not exist.
        """
        count = len(self.plan.steps)
        for index in layers:
            if not 0 <= index < count:
                raise InputError(f"{self.plan.cfg.path}: has layers 0 to {count - 1}, no layer {index}")
        needed = set(layers).union(*(self.plan.steps[index].sources for index in layers)) if layers else set()
        found = self._run(images, needed)
        result = {}
        for index in layers:
            inputs = [found[source] for source in self.plan.steps[index].sources]
            result[index] = self.layers[index].recorded(found[index], *inputs)  # type: ignore[operator]
        return result

    def stored(self) -> Iterator[tuple[int, Stored]]:
        """Yield (layer index, tensor) for everything in the weights file, in file order."""
        for index, layer in enumerate(self):
            for item in layer.stored():
                yield index, item

    def tensors(self) -> list[tuple[str, int, int]]:
        """(kind, count, fan_in) for everything in the weights file, in file order."""
        return [(item.kind, item.tensor.numel(), item.fan_in) for _, item in self.stored()]

    def fold(self) -> Network:
        """Prepare the network for inference; afterwards it can no longer be trained or saved.

        Batch normalisation is folded into the weights. On a CPU the weights are stored channels last, which is fastest there.
        """
        self.eval().requires_grad_(False)
        self.layers = nn.ModuleList(layer.folded() for layer in self)
        if all(each.device.type == "cpu" for each in self.parameters()):
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.is_folded = True
        return self

    def _run(self, images: Tensor, keep: Collection[int], *, stop_at_heads: bool = False) -> dict[int, Tensor]:
        """Run the layers up to the last of `keep`, releasing each output after its last reader."""
        if self.is_folded and images.device.type == "cpu":
            images = images.contiguous(memory_format=torch.channels_last)
        held = {-1: images}
        last = max(keep, default=-1)
        for step, layer in zip(self.plan.steps, self, strict=True):
            if step.index > last:
                break
            if stop_at_heads and step.section.is_head and step.index not in keep:
                continue
            held[step.index] = layer(*(held[source] for source in step.sources))
            for index in self._expires[step.index]:
                if index not in keep:
                    held.pop(index, None)
        return held


def last_reads(plan: Plan) -> tuple[tuple[int, ...], ...]:
    """For each layer, the outputs that it is the last to read (its own, if no layer reads that)."""
    last = {index: index for index in range(-1, len(plan.steps))}
    for step in plan.steps:
        for source in step.sources:
            last[source] = step.index
    expires: list[list[int]] = [[] for _ in plan.steps]
    for index, reader in last.items():
        if reader >= 0:
            expires[reader].append(index)
    return tuple(map(tuple, expires))

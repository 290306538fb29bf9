"""[crnn], [conv_lstm] and [history]: recurrence over feature maps (crnn_layer.c, conv_lstm_layer.c).

Time steps and start state are as in models/layers/recurrent.py.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from models.activations import Activation, activation_option
from models.layers.base import Layer, LayerCost, LayerSection, Shape, Site, Stored, total
from models.layers.convolutional import ConvolutionalSection
from models.layers.recurrent import steps_of
from models.onnx_graph import Graph
from utils.options import option


@dataclass(frozen=True, kw_only=True)
class ConvRecurrentSection(LayerSection):
    """Options of the convolutions inside."""

    output: int = option(1, "output channels", least=1)
    size: int = option(3, "height and width of the kernels", least=1)
    stride: int = option(1, "step of the kernels", least=1)
    dilation: int = option(1, "distance of the kernels' elements", least=1)
    pad: bool = option(False, "pad each side by size / 2; overrides padding")
    padding: int = option(0, "zeros added at each side", least=0)
    groups: int = option(1, "groups of the convolutions", least=1)
    activation: str = activation_option("logistic", "function applied to every convolution")
    batch_normalize: int = option(0, "batch normalisation in every convolution", least=0, most=2)
    xnor: bool = option(False, "convolutions of signs")

    def channels(self, site: Site) -> tuple[tuple[int, int], ...]:
        """(input, output) channels of the convolutions in the order of the weights file."""
        raise AssertionError(f"{type(self).__name__} does not say its channels")

    def convolutions(self, site: Site) -> tuple[tuple[ConvolutionalSection, Site], ...]:
        """The convolutions as sections at sites of their own."""
        result = []
        for channels, filters in self.channels(site):
            section = ConvolutionalSection(
                filters=filters,
                size=self.size,
                stride=self.stride,
                dilation=self.dilation,
                pad=self.pad,
                padding=self.padding,
                groups=self.groups,
                activation=self.activation,
                batch_normalize=self.batch_normalize,
                xnor=self.xnor,
                dontloadscales=self.dontloadscales,
            )
            shape = dataclasses.replace(site.input, channels=channels)
            result.append((section, dataclasses.replace(site, inputs=(shape,))))
        return tuple(result)

    def shape(self, site: Site) -> Shape:
        shapes = {
            (shape.height, shape.width) for shape in (section.shape(at) for section, at in self.convolutions(site))
        }
        if shapes != {(site.input.height, site.input.width)}:
            raise site.error(f"the convolutions change the size {site.input}, expected that pad or padding keeps it")
        return dataclasses.replace(site.input, channels=self.output)

    def cost(self, site: Site) -> LayerCost:
        costs = [section.cost(at) for section, at in self.convolutions(site)]
        return dataclasses.replace(total(costs), operations=_added_as_floats(cost.operations for cost in costs))


def _added_as_floats(operations: Iterable[float]) -> float:
    """Sum with the original's rounding: it adds BFLOPs in single precision (make_crnn_layer, make_conv_lstm_layer)."""
    billions = np.float32(0)
    for value in operations:
        billions += np.float32(value / 1e9)
    return float(billions) * 1e9


@dataclass(frozen=True, kw_only=True)
class CrnnSection(ConvRecurrentSection):
    names: ClassVar[tuple[str, ...]] = ("crnn",)

    hidden: int = option(1, "channels of the state", least=1)
    shortcut: bool = option(False, "the state is added to instead of replaced")

    def channels(self, site: Site) -> tuple[tuple[int, int], ...]:
        return (site.input.channels, self.hidden), (self.hidden, self.hidden), (self.hidden, self.output)

    def build(self, site: Site) -> Crnn:
        return Crnn(self, site)


@dataclass(frozen=True, kw_only=True)
class ConvLstmSection(ConvRecurrentSection):
    names: ClassVar[tuple[str, ...]] = ("conv_lstm",)

    activation: str = activation_option("linear", "function applied to every convolution")
    peephole: bool = option(False, "the gates see the cell, too")
    bottleneck: bool = option(False, "one convolution of state and input takes the place of the state's four")
    lstm_activation: str = activation_option("tanh", "function of candidate and cell with bottleneck")
    state_constrain: int | None = option(None, "largest magnitude of the cell; default 32 times time_steps", least=0)
    shortcut: bool = option(False, "the input is added to the output with bottleneck")
    time_normalizer: float = option(1.0, "factor on the gradients that go back in time")

    def channels(self, site: Site) -> tuple[tuple[int, int], ...]:
        own = ((self.output, self.output),)
        peepholes = 3 * own if self.peephole else ()
        states = ((2 * self.output, self.output),) if self.bottleneck else 4 * own
        return peepholes + states + 4 * ((site.input.channels, self.output),)

    def shape(self, site: Site) -> Shape:
        if self.bottleneck and site.input.channels != self.output:
            raise site.error(f"bottleneck needs output={site.input.channels}, the channels of its input", "output")
        return super().shape(site)

    def cost(self, site: Site) -> LayerCost:
        gates = (12 if self.peephole else 9) * self.shape(site).outputs
        convolutions = super().cost(site)
        return dataclasses.replace(convolutions, operations=convolutions.operations + gates)

    def build(self, site: Site) -> ConvLstm:
        return ConvLstm(self, site)


@dataclass(frozen=True, kw_only=True)
class HistorySection(LayerSection):
    names: ClassVar[tuple[str, ...]] = ("history",)

    history_size: int = option(4, "steps that are kept, the newest first", least=1)

    def shape(self, site: Site) -> Shape:
        return dataclasses.replace(site.input, channels=site.input.channels * self.history_size)

    def build(self, site: Site) -> History:
        return History(self.history_size, site.net.time_steps)


class ConvRecurrent(Layer):
    """Input (steps * n, c, h, w), output (steps * n, output, h, w)."""

    def __init__(self, section: ConvRecurrentSection, site: Site) -> None:
        super().__init__()
        self.time_steps, self.output = site.net.time_steps, section.output
        self.parts = nn.ModuleList(part.build(at) for part, at in section.convolutions(site))

    def stored(self) -> Iterator[Stored]:
        for part in self.parts:
            yield from part.stored()  # type: ignore[operator]

    def at_iteration(self, iteration: int, max_batches: int) -> None:
        for part in self.parts:
            part.at_iteration(iteration, max_batches)  # type: ignore[operator]

    def from_nothing(self, part: nn.Module) -> Tensor:
        """What a part makes of a map of zeros: at inference, where every row is a sequence of one step, a constant."""
        channels = part.weights.shape[1] * part.groups
        with torch.no_grad():
            return part(torch.zeros(1, int(channels), 1, 1))[:, :, :1, :1]

    def folded(self) -> ConvRecurrent:
        layer = copy.copy(self)
        layer._modules = {**self._modules, "parts": nn.ModuleList(part.folded() for part in self.parts)}  # type: ignore[operator]
        return layer


class Crnn(ConvRecurrent):
    """state = input(x) + self(state) (+ state); output(state)."""

    def __init__(self, section: CrnnSection, site: Site) -> None:
        super().__init__(section, site)
        self.hidden, self.shortcut = section.hidden, section.shortcut

    def forward(self, x: Tensor) -> Tensor:
        read, own, write = self.parts
        steps = steps_of(x, self.time_steps, self.training)
        n, _, h, w = steps[0].shape
        state = x.new_zeros(n, self.hidden, h, w)
        outputs = []
        for step in steps:
            change = read(step) + own(state)
            state = state + change if self.shortcut else change
            outputs.append(write(state))
        return torch.cat(outputs)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        read, own, write = self.parts
        state = graph.node("Add", read.export(graph, site, *inputs), self.from_nothing(own))  # type: ignore[operator]
        hidden = dataclasses.replace(site, inputs=(dataclasses.replace(site.input, channels=self.hidden),))
        return write.export(graph, hidden, state)


class ConvLstm(ConvRecurrent):
    """f, i, g, o: forget gate, input gate, candidate, output gate; each a sum of convolutions of state, input and cell.

    With bottleneck the original has a GPU path only (forward_conv_lstm_layer_gpu); it is right for a batch of one sequence,
    and what it does there is done here for each.
    """

    def __init__(self, section: ConvLstmSection, site: Site) -> None:
        super().__init__(section, site)
        self.section = section
        self.function = Activation(section.lstm_activation)

    def forward(self, x: Tensor) -> Tensor:
        steps = steps_of(x, self.time_steps, self.training)
        n, _, h, w = steps[0].shape
        hidden = cell = x.new_zeros(n, self.output, h, w)
        constrain = self.section.state_constrain
        limit = 32 * max(len(steps), 1) if constrain is None else constrain
        outputs = []
        for step in steps:
            output, hidden, cell = self._step(step, hidden, cell)
            cell = cell.clamp(-limit, limit) if limit else cell
            outputs.append(output)
        return torch.cat(outputs)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        section, parts = self.section, list(self.parts)
        if section.bottleneck:
            raise site.error("bottleneck of [conv_lstm] is not offered in ONNX", "bottleneck")
        own, read = parts[3 if section.peephole else 0 : -4], parts[-4:]
        sums = [
            graph.node("Add", part.export(graph, site, *inputs), self.from_nothing(state))  # type: ignore[operator]
            for state, part in zip(own, read, strict=True)
        ]
        nothing = [self.from_nothing(part) for part in parts[:2]] if section.peephole else []
        entry = graph.node("Add", sums[1], nothing[1]) if nothing else sums[1]
        cell = graph.node("Mul", graph.node("Sigmoid", entry), self.function.export(graph, sums[2]))
        exit_ = sums[3]
        if section.peephole:
            inside = dataclasses.replace(site, inputs=(dataclasses.replace(site.input, channels=self.output),))
            exit_ = graph.node("Add", exit_, parts[2].export(graph, inside, cell))  # type: ignore[operator]
        return graph.node("Mul", graph.node("Sigmoid", exit_), self.function.export(graph, cell))

    def _step(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        section, parts = self.section, list(self.parts)
        peep_f, peep_i, peep_o = parts[:3] if section.peephole else (None, None, None)
        states, inputs = parts[3 if section.peephole else 0 : -4], parts[-4:]
        if section.bottleneck:
            seen = self.function(states[0](torch.cat((_slowed(hidden, section.time_normalizer), x), 1)))
            sums = [part(seen) for part in inputs]
        else:
            seen = x
            sums = [own(hidden) + part(x) for own, part in zip(states, inputs, strict=True)]
        f = torch.sigmoid(sums[0] if peep_f is None else sums[0] + peep_f(cell))
        i = torch.sigmoid(sums[1] if peep_i is None else sums[1] + peep_i(cell))
        cell = f * cell + i * self.function(sums[2])
        o = torch.sigmoid(sums[3] if peep_o is None else sums[3] + peep_o(cell))
        hidden = o * self.function(cell)
        return self._with_residual(hidden, seen) if section.bottleneck and section.shortcut else hidden, hidden, cell

    @staticmethod
    def _with_residual(hidden: Tensor, seen: Tensor) -> Tensor:
        """The first half of the bottleneck's values is added to the output."""
        half = hidden[0].numel() // 2
        added = torch.cat((seen.flatten(1)[:, :half], torch.zeros_like(seen.flatten(1)[:, half:])), 1)
        return hidden + added.view_as(hidden)


def _slowed(x: Tensor, factor: float) -> Tensor:
    """x, whose gradient is multiplied by `factor`."""
    return x if factor == 1 else x * factor + (x * (1 - factor)).detach()


class History(Layer):
    """Input (steps * n, c, h, w), output (steps * n, c * size, h, w): this step, the one before, and so on; at first zeros.

    Gradients reach the newest step only (conv_lstm_layer.c backward_history_layer).
    """

    def __init__(self, size: int, time_steps: int) -> None:
        super().__init__()
        self.size, self.time_steps = size, time_steps

    def forward(self, x: Tensor) -> Tensor:
        steps = steps_of(x, self.time_steps, self.training)
        nothing = torch.zeros_like(steps[0])
        outputs = []
        for now, step in enumerate(steps):
            past = [steps[now - back].detach() if back <= now else nothing for back in range(1, self.size)]
            outputs.append(torch.cat((step, *past), 1))
        return torch.cat(outputs)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        return graph.pad(inputs[0], (0, 0, 0, 0), (0, (self.size - 1) * site.input.channels, 0, 0))

"""[crnn], [conv_lstm] and [history]: recurrence over feature maps (crnn_layer.c, conv_lstm_layer.c).

Time steps and the initial state work as in models/layers/recurrent.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from models.activations import Activation, activation_option
from models.layers.base import Layer, LayerCost, LayerSection, Shape, Site, total
from models.layers.convolutional import Convolutional, ConvolutionalSection
from models.layers.recurrent import Recurrent, Rnn, split_steps
from models.onnx_graph import Graph
from utils.options import option


@dataclass(frozen=True, kw_only=True)
class ConvRecurrentSection(LayerSection):
    """Options shared by [crnn] and [conv_lstm]: those of their convolutions."""

    output: int = option(1, "output channels", least=1)
    size: int = option(3, "height and width of the kernels", least=1)
    stride: int = option(1, "stride of the kernels", least=1)
    dilation: int = option(1, "dilation of the kernels", least=1)
    pad: bool = option(False, "pad each side by size / 2; overrides padding")
    padding: int = option(0, "zero padding of each side", least=0)
    groups: int = option(1, "groups of the convolutions", least=1)
    activation: str = activation_option("logistic", "activation function of every convolution")
    batch_normalize: int = option(0, "batch normalisation in every convolution", least=0, most=2)
    xnor: bool = option(False, "binary convolutions, as in [convolutional]")

    def channels(self, site: Site) -> tuple[tuple[int, int], ...]:
        """(input, output) channels of each convolution, in the order of the weights file."""
        raise AssertionError(f"{type(self).__name__} lacks channels()")

    def convolutions(self, site: Site) -> tuple[tuple[ConvolutionalSection, Site], ...]:
        """The convolutions as sections, each with its own site."""
        names = {item.name for item in dataclasses.fields(ConvolutionalSection)}
        shared = {name: value for name, value in vars(self).items() if name in names}
        result = []
        for channels, filters in self.channels(site):
            shape = dataclasses.replace(site.input, channels=channels)
            section = ConvolutionalSection(**shared, filters=filters)
            result.append((section, dataclasses.replace(site, inputs=(shape,))))
        return tuple(result)

    def shape(self, site: Site) -> Shape:
        shapes = {
            (shape.height, shape.width) for shape in (section.shape(at) for section, at in self.convolutions(site))
        }
        if shapes != {(site.input.height, site.input.width)}:
            raise site.error(f"the convolutions change the size {site.input}, expected pad or padding to keep it")
        return dataclasses.replace(site.input, channels=self.output)

    def detail(self, site: Site) -> str:
        section, at = self.convolutions(site)[0]
        return section.detail(at)

    def cost(self, site: Site) -> LayerCost:
        costs = [section.cost(at) for section, at in self.convolutions(site)]
        return dataclasses.replace(total(costs), operations=_added_as_floats(cost.operations for cost in costs))

    def parts(self, site: Site) -> list[Convolutional]:
        return [section.build(at) for section, at in self.convolutions(site)]


def _added_as_floats(operations: Iterable[float]) -> float:
    """Sum with the original's rounding: it adds BFLOPs in single precision (make_crnn_layer, make_conv_lstm_layer)."""
    billions = np.float32(0)
    for value in operations:
        billions += np.float32(value / 1e9)
    return float(billions) * 1e9


@dataclass(frozen=True, kw_only=True)
class CrnnSection(ConvRecurrentSection):
    """A simple recurrent network of three convolutions (crnn_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("crnn",)

    hidden: int = option(1, "channels of the hidden state", least=1)
    shortcut: bool = option(False, "add to the state instead of replacing it")

    def channels(self, site: Site) -> tuple[tuple[int, int], ...]:
        return (site.input.channels, self.hidden), (self.hidden, self.hidden), (self.hidden, self.output)

    def build(self, site: Site) -> Rnn:
        return Rnn(self.parts(site), site.net.time_steps, self.hidden, shortcut=self.shortcut, maps=True)


@dataclass(frozen=True, kw_only=True)
class ConvLstmSection(ConvRecurrentSection):
    """A convolutional long short-term memory (conv_lstm_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("conv_lstm",)

    activation: str = activation_option("linear", "activation function of every convolution")
    peephole: bool = option(False, "the gates also read the cell state")
    bottleneck: bool = option(False, "one convolution of state and input replaces the four of the state")
    lstm_activation: str = activation_option("tanh", "activation function of candidate and cell")
    state_constrain: int | None = option(
        None, "largest magnitude of the cell state; default 32 times time_steps", least=0
    )
    shortcut: bool = option(False, "with bottleneck: add the input to the output")
    time_normalizer: float = option(1.0, "factor on the gradients that flow back in time")

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


class ConvLstm(Recurrent):
    """Convolutional LSTM: input (steps * n, c, h, w), output (steps * n, output, h, w).

    f, i, g and o are forget gate, input gate, candidate and output gate, each a sum of convolutions of state, input and cell.
    With bottleneck, the original has a GPU path only (forward_conv_lstm_layer_gpu), which is correct for a batch of one
    sequence; here every sequence is treated like that.
    """

    def __init__(self, section: ConvLstmSection, site: Site) -> None:
        super().__init__(section.parts(site), site.net.time_steps, section.output)
        self.section = section
        self.function = Activation(section.lstm_activation)

    def forward(self, x: Tensor) -> Tensor:
        steps = split_steps(x, self.time_steps, self.training)
        n, _, h, w = steps[0].shape
        hidden = cell = x.new_zeros(n, self.hidden, h, w)
        constrain = self.section.state_constrain
        limit = 32 * max(len(steps), 1) if constrain is None else constrain
        outputs = []
        for step in steps:
            output, hidden, cell = self._step(step, hidden, cell)
            cell = cell.clamp(-limit, limit) if limit else cell
            outputs.append(output)
        return torch.cat(outputs)

    def _step(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        section, parts = self.section, list(self.parts)
        peep_f, peep_i, peep_o = parts[:3] if section.peephole else (None, None, None)
        states, inputs = parts[3 if section.peephole else 0 : -4], parts[-4:]
        if section.bottleneck:
            x = self.function(states[0](torch.cat((_scale_gradient(hidden, section.time_normalizer), x), 1)))
            gates = [part(x) for part in inputs]
        else:
            gates = [
                reads_state(hidden) + reads_input(x) for reads_state, reads_input in zip(states, inputs, strict=True)
            ]
        f = torch.sigmoid(gates[0] if peep_f is None else gates[0] + peep_f(cell))
        i = torch.sigmoid(gates[1] if peep_i is None else gates[1] + peep_i(cell))
        cell = f * cell + i * self.function(gates[2])
        o = torch.sigmoid(gates[3] if peep_o is None else gates[3] + peep_o(cell))
        hidden = o * self.function(cell)
        return _with_residual(hidden, x) if section.bottleneck and section.shortcut else hidden, hidden, cell

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        section, parts = self.section, list(self.parts)
        if section.bottleneck:
            raise site.error("bottleneck of [conv_lstm] cannot be exported to ONNX", "bottleneck")
        states = parts[3 if section.peephole else 0 : -4]
        _, i, g, o = (
            self.export_sum(graph, site, inputs[0], reads_input, reads_state)
            for reads_state, reads_input in zip(states, parts[-4:], strict=True)
        )
        if section.peephole:
            i = graph.node("Add", i, parts[1].of_zeros())  # type: ignore[operator]
        cell = graph.node("Mul", graph.node("Sigmoid", i), self.function.export(graph, g))
        if section.peephole:
            of_cell = dataclasses.replace(site, inputs=(dataclasses.replace(site.input, channels=self.hidden),))
            o = graph.node("Add", o, parts[2].export(graph, of_cell, cell))  # type: ignore[operator]
        return graph.node("Mul", graph.node("Sigmoid", o), self.function.export(graph, cell))


def _with_residual(hidden: Tensor, x: Tensor) -> Tensor:
    """Add the first half of the bottleneck's values to `hidden`."""
    values = x.flatten(1)
    half = hidden[0].numel() // 2
    added = torch.cat((values[:, :half], torch.zeros_like(values[:, half:])), 1)
    return hidden + added.view_as(hidden)


def _scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Return x unchanged, but with its gradient multiplied by `factor`."""
    return x if factor == 1 else x * factor + (x * (1 - factor)).detach()


@dataclass(frozen=True, kw_only=True)
class HistorySection(LayerSection):
    """The maps of the last time steps side by side (conv_lstm_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("history",)

    history_size: int = option(4, "number of time steps, the newest first", least=1)

    def shape(self, site: Site) -> Shape:
        return dataclasses.replace(site.input, channels=site.input.channels * self.history_size)

    def detail(self, site: Site) -> str:
        return f"{self.history_size} steps"

    def build(self, site: Site) -> History:
        return History(self.history_size, site.net.time_steps)


class History(Layer):
    """Input (steps * n, c, h, w), output (steps * n, c * size, h, w): this step, the one before, ...; zeros before the first.

    Only the newest step gets a gradient (conv_lstm_layer.c backward_history_layer).
    """

    def __init__(self, size: int, time_steps: int) -> None:
        super().__init__()
        self.size, self.time_steps = size, time_steps

    def forward(self, x: Tensor) -> Tensor:
        steps = split_steps(x, self.time_steps, self.training)
        zeros = torch.zeros_like(steps[0])
        outputs = []
        for now, step in enumerate(steps):
            past = [steps[now - back].detach() if back <= now else zeros for back in range(1, self.size)]
            outputs.append(torch.cat((step, *past), 1))
        return torch.cat(outputs)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        return graph.pad(inputs[0], (0, 0, 0, 0), (0, (self.size - 1) * site.input.channels, 0, 0))

"""[rnn], [gru] and [lstm]: recurrent networks of connected layers (rnn_layer.c, gru_layer.c, lstm_layer.c).

In training, a batch consists of as many groups of rows as [net] has `time_steps`: the first step of every sequence, then the
second, and so on. At inference every row is a sequence of one step (the original's test mode sets time_steps to 1). Every
call starts from a zero state.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.activations import activation_option
from models.layers.base import Layer, LayerCost, LayerSection, Shape, Site, Stored, total
from models.layers.connected import Connected, connected_cost
from models.onnx_graph import Graph
from utils.options import option


def split_steps(x: Tensor, time_steps: int, training: bool) -> tuple[Tensor, ...]:
    """Split a batch into its time steps, in order."""
    if not training or time_steps <= 1:
        return (x,)
    assert x.shape[0] % time_steps == 0, f"a batch of {x.shape[0]} is no multiple of {time_steps} time steps"
    return x.chunk(time_steps)


class Recurrent(Layer):
    """A layer composed of other layers.

    parts: in the order of the weights file. Each has `of_zeros()`, its output for a state of zeros; a part that reads the
        state contributes only this at inference.
    hidden: channels of the state.
    """

    def __init__(self, parts: Iterable[nn.Module], time_steps: int, hidden: int) -> None:
        super().__init__()
        self.parts, self.time_steps, self.hidden = nn.ModuleList(parts), time_steps, hidden

    def stored(self) -> Iterator[Stored]:
        for part in self.parts:
            yield from part.stored()  # type: ignore[operator]

    def at_iteration(self, iteration: int, max_batches: int) -> None:
        for part in self.parts:
            part.at_iteration(iteration, max_batches)  # type: ignore[operator]

    def folded(self) -> Recurrent:
        layer = copy.copy(self)
        layer._modules = {**self._modules, "parts": nn.ModuleList(part.folded() for part in self.parts)}  # type: ignore[operator]
        return layer

    def export_sum(self, graph: Graph, site: Site, x: str, reads_input: nn.Module, reads_state: nn.Module) -> str:
        """Add the sum of both parts to an ONNX graph; the state is zero."""
        return graph.node("Add", reads_input.export(graph, site, x), reads_state.of_zeros())  # type: ignore[operator]


class Rnn(Recurrent):
    """state = input(x) + recurrent(state) (+ state); the result is output(state).

    Input (steps * n, c, h, w), output (steps * n, output, 1, 1), or (steps * n, output, h, w) if the parts keep `maps`.
    """

    def __init__(
        self, parts: Iterable[nn.Module], time_steps: int, hidden: int, *, shortcut: bool, maps: bool = False
    ) -> None:
        super().__init__(parts, time_steps, hidden)
        self.shortcut, self.maps = shortcut, maps

    def forward(self, x: Tensor) -> Tensor:
        reads_input, reads_state, output = self.parts
        steps = split_steps(x, self.time_steps, self.training)
        state = x.new_zeros(len(steps[0]), self.hidden, *(x.shape[2:] if self.maps else (1, 1)))
        outputs = []
        for step in steps:
            change = reads_input(step) + reads_state(state)
            state = state + change if self.shortcut else change
            outputs.append(output(state))
        return torch.cat(outputs)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        reads_input, reads_state, output = self.parts
        state = self.export_sum(graph, site, inputs[0], reads_input, reads_state)
        shape = dataclasses.replace(site.input, channels=self.hidden) if self.maps else Shape(self.hidden, 1, 1)
        return output.export(graph, dataclasses.replace(site, inputs=(shape,)), state)  # type: ignore[operator]


@dataclass(frozen=True, kw_only=True)
class RecurrentSection(LayerSection):
    """Options shared by [rnn], [gru] and [lstm]."""

    output: int = option(1, "number of outputs", least=1)
    batch_normalize: bool = option(False, "batch normalisation in every connected layer")

    def shape(self, site: Site) -> Shape:
        return Shape(self.output, 1, 1)

    def sizes(self, site: Site) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of each connected layer, in the order of the weights file."""
        raise AssertionError(f"{type(self).__name__} lacks sizes()")

    def cost(self, site: Site) -> LayerCost:
        stored = self.batch_normalize and not self.dontloadscales
        return total(connected_cost(*pair, stored) for pair in self.sizes(site))

    def parts(self, site: Site, activations: tuple[str, ...]) -> list[Connected]:
        return [
            Connected(*pair, activation, self.batch_normalize, load_scales=not self.dontloadscales)
            for pair, activation in zip(self.sizes(site), activations, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class RnnSection(RecurrentSection):
    """A simple recurrent network of three connected layers (rnn_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("rnn",)

    hidden: int = option(1, "length of the hidden state", least=1)
    activation: str = activation_option("logistic", "activation function of every connected layer")
    logistic: int = option(0, "activation of the layer that reads the state; 1: logistic, 2: loggy")
    shortcut: bool = option(False, "add to the state instead of replacing it")

    def sizes(self, site: Site) -> tuple[tuple[int, int], ...]:
        return (site.input.outputs, self.hidden), (self.hidden, self.hidden), (self.hidden, self.output)

    def detail(self, site: Site) -> str:
        return f"hidden {self.hidden} {self.activation}"

    def build(self, site: Site) -> Rnn:
        of_state = {1: "logistic", 2: "loggy"}.get(self.logistic, self.activation)
        parts = self.parts(site, (self.activation, of_state, self.activation))
        return Rnn(parts, site.net.time_steps, self.hidden, shortcut=self.shortcut)


@dataclass(frozen=True, kw_only=True)
class GruSection(RecurrentSection):
    """A gated recurrent unit of six connected layers (gru_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("gru",)

    def sizes(self, site: Site) -> tuple[tuple[int, int], ...]:
        return ((site.input.outputs, self.output),) * 3 + ((self.output, self.output),) * 3

    def build(self, site: Site) -> Gru:
        return Gru(self.parts(site, ("linear",) * 6), site.net.time_steps, self.output)


class Gru(Recurrent):
    """Input (steps * n, ...), output (steps * n, outputs, 1, 1).

    z and r are update and reset gate; the candidate goes through a logistic function (gru_layer.c without USET).
    """

    def forward(self, x: Tensor) -> Tensor:
        input_z, input_r, input_h, state_z, state_r, state_h = self.parts
        steps = split_steps(x, self.time_steps, self.training)
        state = x.new_zeros(len(steps[0]), self.hidden, 1, 1)
        outputs = []
        for step in steps:
            z = torch.sigmoid(input_z(step) + state_z(state))
            r = torch.sigmoid(input_r(step) + state_r(state))
            h = torch.sigmoid(input_h(step) + state_h(state * r))
            state = z * state + (1 - z) * h
            outputs.append(state)
        return torch.cat(outputs)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        input_z, _, input_h, state_z, _, state_h = self.parts
        z = graph.node("Sigmoid", self.export_sum(graph, site, inputs[0], input_z, state_z))
        h = graph.node("Sigmoid", self.export_sum(graph, site, inputs[0], input_h, state_h))
        return graph.node("Mul", graph.node("Sub", 1.0, z), h)


@dataclass(frozen=True, kw_only=True)
class LstmSection(RecurrentSection):
    """A long short-term memory of eight connected layers (lstm_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("lstm",)

    def sizes(self, site: Site) -> tuple[tuple[int, int], ...]:
        return ((self.output, self.output),) * 4 + ((site.input.outputs, self.output),) * 4

    def build(self, site: Site) -> Lstm:
        return Lstm(self.parts(site, ("linear",) * 8), site.net.time_steps, self.output)


class Lstm(Recurrent):
    """Input (steps * n, ...), output (steps * n, outputs, 1, 1).

    f, i, g and o are forget gate, input gate, candidate and output gate.
    """

    def forward(self, x: Tensor) -> Tensor:
        steps = split_steps(x, self.time_steps, self.training)
        hidden = cell = x.new_zeros(len(steps[0]), self.hidden, 1, 1)
        outputs = []
        for step in steps:
            gates = [
                reads_state(hidden) + reads_input(step)
                for reads_state, reads_input in zip(self.parts[:4], self.parts[4:], strict=True)
            ]
            f, i, o = (torch.sigmoid(gates[number]) for number in (0, 1, 3))
            cell = f * cell + i * torch.tanh(gates[2])
            hidden = o * torch.tanh(cell)
            outputs.append(hidden)
        return torch.cat(outputs)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        i, g, o = (
            self.export_sum(graph, site, inputs[0], reads_input, reads_state)
            for reads_state, reads_input in zip(self.parts[1:4], self.parts[5:], strict=True)
        )
        cell = graph.node("Mul", graph.node("Sigmoid", i), graph.node("Tanh", g))
        return graph.node("Mul", graph.node("Sigmoid", o), graph.node("Tanh", cell))

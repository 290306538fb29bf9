"""[rnn], [gru] and [lstm]: recurrent networks of connected layers (rnn_layer.c, gru_layer.c, lstm_layer.c).

In training a batch holds time_steps of [net] rows of steps, first the first step of every sequence, then the second of each.
At inference every row is a sequence of one step (the original's test mode sets time_steps to 1). Every call starts from a
state of zeros.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.activations import activation_option
from models.layers.base import Layer, LayerCost, LayerSection, Shape, Site, Stored, total
from models.layers.connected import Connected, connected_cost
from models.onnx_graph import Graph
from utils.options import option


def steps_of(x: Tensor, time_steps: int, training: bool) -> tuple[Tensor, ...]:
    """The batch of each time step, in order."""
    if not training or time_steps <= 1:
        return (x,)
    assert x.shape[0] % time_steps == 0, f"a batch of {x.shape[0]} is no multiple of {time_steps} time steps"
    return x.chunk(time_steps)


@dataclass(frozen=True, kw_only=True)
class RecurrentSection(LayerSection):
    """What all three share."""

    output: int = option(1, "outputs", least=1)
    batch_normalize: bool = option(False, "batch normalisation in every connected layer")

    def shape(self, site: Site) -> Shape:
        return Shape(self.output, 1, 1)

    def sizes(self, site: Site) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of the connected layers in the order of the weights file."""
        raise AssertionError(f"{type(self).__name__} does not say its sizes")

    def cost(self, site: Site) -> LayerCost:
        stored = self.batch_normalize and not self.dontloadscales
        return total(connected_cost(*pair, stored) for pair in self.sizes(site))


@dataclass(frozen=True, kw_only=True)
class RnnSection(RecurrentSection):
    names: ClassVar[tuple[str, ...]] = ("rnn",)

    hidden: int = option(1, "length of the state", least=1)
    activation: str = activation_option("logistic", "function applied to every connected layer")
    logistic: int = option(0, "activation of the state's own layer; 1: logistic, 2: loggy")
    shortcut: bool = option(False, "the state is added to instead of replaced")

    def sizes(self, site: Site) -> tuple[tuple[int, int], ...]:
        return (site.input.outputs, self.hidden), (self.hidden, self.hidden), (self.hidden, self.output)

    @property
    def activations(self) -> tuple[str, str, str]:
        own = {1: "logistic", 2: "loggy"}.get(self.logistic, self.activation)
        return self.activation, own, self.activation

    def build(self, site: Site) -> Rnn:
        return Rnn(self, site)


@dataclass(frozen=True, kw_only=True)
class GruSection(RecurrentSection):
    names: ClassVar[tuple[str, ...]] = ("gru",)

    def sizes(self, site: Site) -> tuple[tuple[int, int], ...]:
        return ((site.input.outputs, self.output),) * 3 + ((self.output, self.output),) * 3

    def build(self, site: Site) -> Gru:
        return Gru(self, site)


@dataclass(frozen=True, kw_only=True)
class LstmSection(RecurrentSection):
    names: ClassVar[tuple[str, ...]] = ("lstm",)

    def sizes(self, site: Site) -> tuple[tuple[int, int], ...]:
        return ((self.output, self.output),) * 4 + ((site.input.outputs, self.output),) * 4

    def build(self, site: Site) -> Lstm:
        return Lstm(self, site)


def _flat(site: Site, length: int) -> Site:
    """A place whose input has so many values."""
    return dataclasses.replace(site, inputs=(Shape(length, 1, 1),))


class Recurrent(Layer):
    """Input (steps * n, ...), output (steps * n, outputs, 1, 1)."""

    def __init__(self, section: RecurrentSection, site: Site, activations: tuple[str, ...]) -> None:
        super().__init__()
        self.time_steps, self.outputs = site.net.time_steps, section.output
        self.parts = nn.ModuleList(
            Connected(*pair, activation, section.batch_normalize, load_scales=not section.dontloadscales)
            for pair, activation in zip(section.sizes(site), activations, strict=True)
        )

    def stored(self) -> Iterator[Stored]:
        for part in self.parts:
            yield from part.stored()  # type: ignore[operator]

    def folded(self) -> Recurrent:
        layer = copy.copy(self)
        layer._modules = {**self._modules, "parts": nn.ModuleList(part.folded() for part in self.parts)}  # type: ignore[operator]
        return layer

    def from_nothing(self, part: nn.Module) -> Tensor:
        """What a part makes of a state of zeros: at inference, where every row is a sequence of one step, a constant."""
        with torch.no_grad():
            return part(torch.zeros(1, part.inputs, 1, 1))

    def zeros(self, x: Tensor, length: int) -> Tensor:
        return x.new_zeros(x.shape[0], length, 1, 1)


class Rnn(Recurrent):
    """state = input(x) + self(state) (+ state); output(state)."""

    def __init__(self, section: RnnSection, site: Site) -> None:
        super().__init__(section, site, section.activations)
        self.hidden, self.shortcut = section.hidden, section.shortcut

    def forward(self, x: Tensor) -> Tensor:
        read, own, write = self.parts
        steps = steps_of(x, self.time_steps, self.training)
        state = self.zeros(steps[0], self.hidden)
        outputs = []
        for step in steps:
            change = read(step) + own(state)
            state = state + change if self.shortcut else change
            outputs.append(write(state))
        return torch.cat(outputs)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        read, own, write = self.parts
        state = graph.node("Add", read.export(graph, site, *inputs), self.from_nothing(own))  # type: ignore[operator]
        return write.export(graph, _flat(site, self.hidden), state)


class Gru(Recurrent):
    """z, r: update and reset gates; the candidate passes a logistic (gru_layer.c without USET)."""

    def __init__(self, section: GruSection, site: Site) -> None:
        super().__init__(section, site, ("linear",) * 6)

    def forward(self, x: Tensor) -> Tensor:
        input_z, input_r, input_h, state_z, state_r, state_h = self.parts
        steps = steps_of(x, self.time_steps, self.training)
        state = self.zeros(steps[0], self.outputs)
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
        gates = []
        for part, own in ((input_z, state_z), (input_h, state_h)):
            total = graph.node("Add", part.export(graph, site, *inputs), self.from_nothing(own))  # type: ignore[operator]
            gates.append(graph.node("Sigmoid", total))
        return graph.node("Mul", graph.node("Sub", 1.0, gates[0]), gates[1])


class Lstm(Recurrent):
    """f, i, g, o: forget gate, input gate, candidate, output gate."""

    def __init__(self, section: LstmSection, site: Site) -> None:
        super().__init__(section, site, ("linear",) * 8)

    def forward(self, x: Tensor) -> Tensor:
        steps = steps_of(x, self.time_steps, self.training)
        hidden = cell = self.zeros(steps[0], self.outputs)
        outputs = []
        for step in steps:
            sums = [own(hidden) + read(step) for own, read in zip(self.parts[:4], self.parts[4:], strict=True)]
            f, i, o = (torch.sigmoid(sums[gate]) for gate in (0, 1, 3))
            cell = f * cell + i * torch.tanh(sums[2])
            hidden = o * torch.tanh(cell)
            outputs.append(hidden)
        return torch.cat(outputs)

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        sums = [
            graph.node("Add", read.export(graph, site, *inputs), self.from_nothing(own))  # type: ignore[operator]
            for own, read in zip(self.parts[1:4], self.parts[5:], strict=True)
        ]
        cell = graph.node("Mul", graph.node("Sigmoid", sums[0]), graph.node("Tanh", sums[1]))
        return graph.node("Mul", graph.node("Sigmoid", sums[2]), graph.node("Tanh", cell))

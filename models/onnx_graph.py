"""An ONNX graph under construction, as plain data; layers add nodes to it without needing the onnx package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Operand = str | float | Tensor | NDArray[Any]

INPUT = "images"
_SHARED_SIZE = 64  # equal constants of up to this many values are stored once
_END = 2**31 - 1
_TYPE_NUMBERS: dict[type[np.floating[Any]], int] = {np.float32: 1, np.float16: 10}  # of onnx.TensorProto


@dataclass(frozen=True)
class Node:
    """One operation; inputs and outputs are names of values, with "" for an omitted input."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


class Graph:
    """Nodes in order of computation, and constants by name.

    opset: operator set version.
    batch: batch size; None: any.
    dynamic_size: width and height are known only when the model runs.
    size_wh: width and height of the input otherwise.
    """

    def __init__(self, *, opset: int, batch: int | None, dynamic_size: bool, size_wh: tuple[int, int]) -> None:
        self.opset, self.batch, self.dynamic_size, self.size_wh = opset, batch, dynamic_size, size_wh
        self.nodes: list[Node] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.dtype: type[np.floating[Any]] = np.float32
        self._scope = ""
        self._shared: dict[tuple[Any, ...], str] = {}
        self._types: dict[str, type[np.floating[Any]]] = {INPUT: np.float32}

    @contextmanager
    def scope(self, name: str, dtype: type[np.floating[Any]]) -> Iterator[None]:
        """Within this context, node names begin with `name` and constants have `dtype`."""
        before = self._scope, self.dtype
        self._scope, self.dtype = name, dtype
        try:
            yield
        finally:
            self._scope, self.dtype = before

    def node(self, op: str, *inputs: Operand, **attributes: Any) -> str:
        """Add an operation with one output and return the output's name; inputs that are not names become constants."""
        names = tuple(each if isinstance(each, str) else self.constant(each) for each in inputs)
        name = f"{self._scope}{op}_{len(self.nodes)}"
        self.nodes.append(Node(op, name, names, (name,), attributes))
        self._types[name] = self.dtype
        return name

    def constant(self, values: float | Tensor | NDArray[Any] | Sequence[Any]) -> str:
        """A constant in the current floating point type."""
        if isinstance(values, Tensor):
            values = values.detach().cpu().numpy()
        return self.fixed(np.asarray(values, np.float64).astype(self.dtype))

    def integers(self, values: Sequence[int] | int) -> str:
        """An int64 constant."""
        return self.fixed(np.asarray(values, np.int64))

    def scales(self, values: Sequence[float] | float | NDArray[Any]) -> str:
        """A float32 constant; some operators require this regardless of the type of their input."""
        return self.fixed(np.asarray(values, np.float32))

    def fixed(self, array: NDArray[Any]) -> str:
        """A constant that keeps the type of `array`."""
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size <= _SHARED_SIZE else None
        if key in self._shared:
            return self._shared[key]
        name = f"constant_{len(self.constants)}"
        self.constants[name] = np.ascontiguousarray(array).reshape(array.shape)
        if key is not None:
            self._shared[key] = name
        return name

    def slice(self, x: str, axis: int, start: int, stop: int | None = None, step: int = 1) -> str:
        """x[start:stop:step] along an axis."""
        ends = self.integers([_END if stop is None else stop])
        return self.node("Slice", x, self.integers([start]), ends, self.integers([axis]), self.integers([step]))

    def reshape(self, x: str, *shape: int) -> str:
        """Reshape x; 0 keeps a dimension, -1 infers one."""
        return self.node("Reshape", x, self.integers(shape))

    def concat(self, values: Sequence[str], axis: int) -> str:
        return values[0] if len(values) == 1 else self.node("Concat", *values, axis=axis)

    def clip(self, x: str, low: float | None, high: float | None) -> str:
        limits = ["" if each is None else self.constant(each) for each in (low, high)]
        return self.node("Clip", x, *(limits if limits[1] else limits[:1]))

    def pad(self, x: str, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> str:
        """Pad a 4-dimensional tensor with a constant."""
        borders = self.integers([*before, *after])
        if value == 0:
            return self.node("Pad", x, borders)
        # Not shared: OpenCV 4 mistakes a constant with several readers for a second tensor to pad.
        name = f"{self._scope}pad_value_{len(self.constants)}"
        self.constants[name] = np.asarray(value, self.dtype)
        return self.node("Pad", x, borders, name)

    def sum(self, x: str, axis: int) -> str:
        """Sum along an axis, kept with length 1."""
        return self.node("ReduceSum", x, self.integers([axis]), keepdims=1)

    def largest(self, x: str, axis: int) -> str:
        """Maximum along an axis, kept with length 1."""
        if self.opset < 18:
            return self.node("ReduceMax", x, axes=[axis], keepdims=1)
        return self.node("ReduceMax", x, self.integers([axis]), keepdims=1)

    def sizes(self, x: str, start: int, stop: int) -> str:
        """Dimensions start to stop - 1 of x, as int64."""
        return self.slice(self.node("Shape", x), 0, start, stop)

    def to_float(self, x: str) -> str:
        """Convert integers to the current floating point type."""
        return self.node("Cast", x, to=_TYPE_NUMBERS[self.dtype])

    def cast(self, x: str) -> str:
        """Convert floating point values to the current floating point type."""
        return x if self._types.get(x) is self.dtype else self.to_float(x)

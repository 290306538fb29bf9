"""Builds a network layer by layer and writes it as Darknet cfg text; all layer numbers are computed here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Generic, Literal, TypeVar

from utils.errors import InputError

Value = int | float | str


@dataclass(frozen=True)
class Map:
    """The output of a layer: index, channels, side in pixels at the cfg's (square) input size, and stride.

    The stride is the number of input pixels per pixel of this map: the product of all strides so far.
    """

    index: int
    channels: int
    side: int
    stride: int = 1

    def __str__(self) -> str:
        return f"layer {self.index} ({self.channels} channels, {self.side}x{self.side})"


@dataclass(frozen=True)
class Section:
    """A `[type]` section; `comment` goes above it."""

    type: str
    options: Mapping[str, Value]
    comment: str | None = None


@dataclass
class Net:
    """A network under construction.

    Every method appends a layer and returns its Map. Darknet's convolution and pooling layers read the previous layer, so
    if one is given an older Map, a `[route]` is added first. References within a `part` are relative (`-4`), references to
    an earlier part absolute (`61`), so that each part can be edited separately.
    """

    side: int
    activation: str = "leaky"
    layers: list[Section] = field(default_factory=list)
    _part_start: int = 0
    _comment: str | None = None

    @property
    def input(self) -> Map:
        """The input image; only the first layer may read it."""
        return Map(-1, 3, self.side)

    @contextmanager
    def using(self, activation: str) -> Iterator[None]:
        """Change the default activation inside the `with` block."""
        before, self.activation = self.activation, activation
        yield
        self.activation = before

    def part(self, comment: str) -> None:
        """Start a part: `comment` goes above its first layer, and references to earlier parts are absolute."""
        self._part_start = len(self.layers)
        self._comment = comment

    def normalized(self, image: Map) -> Map:
        """The image with mean 0 and variance 1 per channel, by `[batchnorm]`.

        It learns statistics only: its gradient stops here, since the original would write it to the image, which has none
        (batchnorm_layer.c backward_batchnorm_layer).
        """
        return self._after(image, "batchnorm", {"stopbackward": 1})

    def conv(
        self,
        source: Map,
        filters: int,
        size: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: str | None = None,
        normalize: bool = True,
    ) -> Map:
        """Convolution with padding size // 2, batch norm if `normalize`, and an activation."""
        if source.channels % groups or filters % groups:
            raise InputError(f"{groups} groups do not divide {source} into {filters} filters")
        options: dict[str, Value] = {"batch_normalize": 1} if normalize else {}
        options |= {"filters": filters, "size": size, "stride": stride, "pad": 1}
        if groups > 1:
            options["groups"] = groups
        options["activation"] = activation or self.activation
        side = (source.side + 2 * (size // 2) - size) // stride + 1
        return self._after(source, "convolutional", options, channels=filters, side=side, stride=source.stride * stride)

    def maxpool(self, source: Map, size: int = 2, *, stride: int = 2, padding: int | None = None) -> Map:
        """Max pooling; by default Darknet pads size - 1 in total, so only the stride determines the output size."""
        options: dict[str, Value] = {"size": size, "stride": stride}
        if padding is not None:
            options["padding"] = padding
        total = size - 1 if padding is None else padding
        side = (source.side + total - size) // stride + 1
        return self._after(source, "maxpool", options, side=side, stride=source.stride * stride)

    def maxout(self, source: Map, channels: int) -> Map:
        """Maximum over every `source.channels / channels` channels; `source` itself if the counts are equal."""
        if source.channels == channels:
            return source
        if source.channels % channels:
            raise InputError(f"maxout cannot compress {source} to {channels} channels: expected a divisor")
        options = {"maxpool_depth": 1, "out_channels": channels, "size": 1, "stride": 1}
        return self._after(source, "maxpool", options, channels=channels)

    def upsample(self, source: Map) -> Map:
        """Nearest-neighbour upsampling to twice the size."""
        return self._after(source, "upsample", {"stride": 2}, side=2 * source.side, stride=source.stride // 2)

    def avgpool(self, source: Map) -> Map:
        """Global average pooling to one pixel."""
        return self._after(source, "avgpool", {}, side=1, stride=self.side)

    def dropout(self, source: Map, probability: float) -> Map:
        return self._after(source, "dropout", {"probability": probability})

    def softmax(self, source: Map) -> Map:
        return self._after(source, "softmax", {"groups": 1})

    def route(self, *sources: Map) -> Map:
        """Concatenate the channels of `sources`, which must have the same size."""
        sides = {source.side for source in sources}
        if len(sides) > 1:
            raise InputError("cannot concatenate " + " and ".join(map(str, sources)) + ": expected equal sizes")
        layers = ",".join(self._reference(source) for source in sources)
        return self._append("route", {"layers": layers}, replace(sources[0], channels=sum(s.channels for s in sources)))

    def split(self, source: Map, part: int, parts: int) -> Map:
        """One of `parts` equal slices of the channels."""
        if source.channels % parts:
            raise InputError(f"cannot split {source} into {parts} equal parts")
        options: dict[str, Value] = {"layers": self._reference(source), "groups": parts, "group_id": part}
        return self._append("route", options, replace(source, channels=source.channels // parts))

    def subsample(self, source: Map, stride: int) -> Map:
        """Every `stride`-th pixel of every `stride`-th row, taken without arithmetic by [reorg3d] and a grouped [route].

        The published residual networks add a larger map to a smaller one. [shortcut] used to subsample the larger map
        like this (blas.c shortcut_cpu); the current shortcut_layer.c rejects it.
        """
        channels, side = source.channels * stride**2, source.side // stride
        changes = {"channels": channels, "side": side, "stride": source.stride * stride}
        blocks = self._after(source, "reorg3d", {"stride": stride}, **changes)
        return self.split(blocks, 0, stride**2)

    def shortcut(self, source: Map, other: Map, activation: str | None = None) -> Map:
        """`source` plus `other` over their common channels; keeps the shape of `source`."""
        if other.side != source.side:
            raise InputError(f"cannot add {other} to {source}: expected equal sizes")
        source = self._previous(source)
        options = {"from": self._reference(other), "activation": activation or self.activation}
        return self._append("shortcut", options, source)

    def gate(self, source: Map, gate: Map) -> Map:
        """`source` times `gate`: per channel when the gate is one pixel, otherwise elementwise ([sam])."""
        if gate.channels != source.channels or gate.side not in (1, source.side):
            raise InputError(f"{gate} cannot gate {source}: expected equal channels and one pixel or equal size")
        self._previous(gate)
        kind = "scale_channels" if gate.side == 1 else "sam"
        return self._append(kind, {"from": self._relative(source)}, source)

    def yolo(self, source: Map, options: Mapping[str, Value]) -> Map:
        return self._after(source, "yolo", options)

    def _after(self, source: Map, kind: str, options: Mapping[str, Value], **changes: int) -> Map:
        """Append a layer that reads `source` as the previous layer; changes: attributes in which its output differs."""
        return self._append(kind, options, replace(self._previous(source), **changes))

    def _append(self, kind: str, options: Mapping[str, Value], output: Map) -> Map:
        """Append a layer with an output like `output`."""
        if output.side < 1:
            raise InputError(f"layer {len(self.layers)} [{kind}] would be {output.side} pixels wide")
        self.layers.append(Section(kind, options, self._comment))
        self._comment = None
        return replace(output, index=len(self.layers) - 1)

    def _previous(self, source: Map) -> Map:
        """Make `source` the previous layer, by a [route] if necessary."""
        if source.index == len(self.layers) - 1:
            return source
        assert source.index >= 0, "only the first layer may read the image"
        return self.route(source)

    def _reference(self, source: Map) -> str:
        return str(source.index) if source.index < self._part_start else self._relative(source)

    def _relative(self, source: Map) -> str:
        return str(source.index - len(self.layers))


def write_sections(sections: Sequence[Section]) -> str:
    """Cfg text of the sections, separated by blank lines."""
    blocks = []
    for section in sections:
        comment = [f"# {line}" for line in (section.comment or "").splitlines()]
        body = [f"{key}={value}" for key, value in section.options.items()]
        blocks.append("\n".join([*comment, f"[{section.type}]", *body]))
    return "\n\n".join(blocks) + "\n"


@dataclass(frozen=True)
class Features:
    """The maps that a backbone offers to a head, by stride in input pixels (4, 8, 16, 32, ...)."""

    backbone: str
    maps: Mapping[int, Map]

    @property
    def last(self) -> Map:
        """The coarsest map, which a classifier reads."""
        return self.maps[max(self.maps)]

    def take(self, head: str, strides: Sequence[int], *, at_least: int = 1) -> tuple[Map, ...]:
        """The maps at `strides`. Raises InputError, naming backbone and head, if one is missing or narrower than `at_least`."""
        offered = ", ".join(f"/{stride} ({self.maps[stride].channels} channels)" for stride in sorted(self.maps))
        wanted = ", ".join(f"/{stride}" for stride in strides)
        sides = f"head {head} reads {wanted}, backbone {self.backbone} offers {offered}"
        missing = [stride for stride in strides if stride not in self.maps]
        if missing:
            raise InputError(f"{sides}: nothing at " + ", ".join(f"/{stride}" for stride in missing))
        for stride in strides:
            channels = self.maps[stride].channels
            if channels < at_least:
                raise InputError(f"{sides}: expected at least {at_least} channels at /{stride}, not {channels}")
        return tuple(self.maps[stride] for stride in strides)


Origin = Literal["cfg", "public", "figure", "derived", "fitted"]
"""Where a layer table comes from; compose.catalog.ORIGINS explains each."""
Builder = TypeVar("Builder", bound=Callable[..., object])


@dataclass(frozen=True)
class Part(Generic[Builder]):
    """A backbone or head by name: what it is, where its layer table comes from, and the function that builds it."""

    title: str
    origin: Origin
    build: Builder


Backbone = Part[Callable[[Net], Features]]
Head = Part[Callable[[Net, Features], None]]

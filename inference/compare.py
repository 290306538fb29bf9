"""Compare two models of any formats on one image (convert.py compare)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.detector import Detector
from inference.engine import ENGINES, EngineNetwork
from inference.model import AUTO, open_network
from inference.predictor import NmsOptions, Runnable
from models.export.verify import difference
from models.formats.files import LoadOptions
from models.network import Network
from utils.boxes import iou, pairwise, xyxy_to_cxcywh
from utils.detections import Detections
from utils.letterbox import Letterbox, Preprocessing

LAYER_TOLERANCE = 1e-3  # in standard deviations of a layer's output; rounding stays below
SAME_OVERLAP, SAME_SCORE = 0.99, 0.01  # least IoU and largest score difference of boxes that count as the same
_PART = 16  # layers that are computed and held at a time


@dataclass(frozen=True)
class LayerDifference:
    """Largest and mean difference of one layer's outputs. spread: standard deviation of the first network's output."""

    index: int
    name: str
    largest: float
    mean: float
    spread: float

    @property
    def differs(self) -> bool:
        return not self.largest <= LAYER_TOLERANCE * max(self.spread, 1e-6)


@dataclass(frozen=True)
class BoxMatches:
    """Agreement of the boxes of two models.

    same: pairs of one class with an IoU of at least 0.99 and scores within 0.01.
    only_a, only_b: boxes without such a partner.
    least_overlap, largest_score: lowest IoU and largest score difference of all pairs of one class with an IoU above 0.5.
    paired: whether there are such pairs.
    """

    same: int
    only_a: int
    only_b: int
    least_overlap: float
    largest_score: float
    paired: bool = False


def layer_differences(a: Network, b: Network, images: Tensor) -> Iterator[LayerDifference]:
    """Compare layer by layer, up to the first that differs in type or shape. images: (n, channels, height, width)."""
    kinds = ([(step.section.names, step.shape) for step in network.plan.steps] for network in (a, b))
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*kinds, strict=False)))
    for start in range(0, common, _PART):
        indices = range(start, min(start + _PART, common))
        with torch.inference_mode():
            mine, theirs = a.outputs(images, indices), b.outputs(images, indices)
        for index in indices:
            error = (mine[index].float() - theirs[index].float()).abs()
            spread = float(mine[index].float().std(correction=0))
            yield LayerDifference(index, a.plan.steps[index].raw.name, float(error.max()), float(error.mean()), spread)


def box_matches(a: Detections, b: Detections) -> BoxMatches:
    """Match each box of `a` with the box of its class in `b` that overlaps it most."""
    if not len(a) or not len(b):
        return BoxMatches(0, len(a), len(b), 1.0, 0.0)
    overlaps = pairwise(iou, *(xyxy_to_cxcywh(torch.from_numpy(found.xyxy)) for found in (a, b)))
    classes = torch.from_numpy(a.class_ids)[:, None] == torch.from_numpy(b.class_ids)[None]
    overlaps = torch.where(classes, overlaps, 0.0)
    best, place = overlaps.max(1)
    scores = (torch.from_numpy(a.scores) - torch.from_numpy(b.scores)[place]).abs()
    near = (best >= SAME_OVERLAP) & (scores <= SAME_SCORE)
    same = len(place[near].unique())
    paired = best > 0.5
    return BoxMatches(
        same=same,
        only_a=len(a) - int(near.sum()),
        only_b=len(b) - same,
        least_overlap=float(best[paired].min()) if paired.any() else 1.0,
        largest_score=float(scores[paired].max()) if paired.any() else 0.0,
        paired=bool(paired.any()),
    )


_CLOSE = 1e-3  # largest difference of outputs, relative to their size, that counts as rounding
Show = Callable[[str], Any]


class Side(NamedTuple):
    """A model file, its cfg unless the file contains one, and the engine."""

    path: str
    cfg: str | None = None
    backend: str = AUTO


class Verdict(NamedTuple):
    same: bool
    text: str


class Comparison:
    """Compare models `a` and `b` at `size_wh`; default: the input size of `a`. Raises InputError for files it cannot open."""

    def __init__(self, a: Side, b: Side, size_wh: tuple[int, int] | None = None) -> None:
        self.sides = (a, b)
        first = _opened(a, size_wh)
        self.size_wh = (first.plan.input.width, first.plan.input.height)
        self.models = (first, _opened(b, self.size_wh))
        self.channels = first.plan.input.channels

    def describe(self) -> str:
        """Return one line that names both models."""
        return f"{self.sides[0].path} and {self.sides[1].path} at {self.size_wh[0]}x{self.size_wh[1]}"

    def random_image(self) -> NDArray[np.uint8]:
        """Return an image of random pixels in the input size, the same every time."""
        width, height = self.size_wh
        return np.random.default_rng(0).integers(0, 256, (height, width, self.channels), np.uint8)

    def compare(self, image: NDArray[np.uint8], *, conf: float, every_layer: bool, show: Show) -> Verdict:
        """Compare layers, outputs and boxes above `conf` as far as both models have them.

        image: uint8 (height, width, channels). show: called with each line of the report.
        """
        letter_box = self.models[0].plan.net.letter_box
        preprocess = Preprocessing(network_wh=self.size_wh, channels=self.channels, letter_box=letter_box)
        pixels, letterbox = preprocess(image)
        images = torch.from_numpy(pixels)[None]
        differs = self._layers(images, every_layer, show)
        with torch.inference_mode():
            outputs = [tuple(model(images)) for model in self.models]
        close = self._outputs(outputs, show)
        matches = self._boxes(outputs, letterbox, conf, show)
        return _verdict(differs, close, matches)

    def _layers(self, images: Tensor, every_layer: bool, show: Show) -> LayerDifference | None:
        """Compare the layers; return the first that differs by more than rounding."""
        a, b = self.models
        if not isinstance(a, Network) or not isinstance(b, Network):
            show("layers: not compared, an engine gives the outputs only")
            return None
        first, count = None, 0
        show(f"{'layer':>5} {'type':<16} {'largest':>9} {'mean':>9} {'spread':>9}")
        for row in layer_differences(a, b, images):
            count += 1
            first = first or (row if row.differs else None)
            if every_layer or row is first:
                show(f"{row.index:>5} {row.name:<16} {row.largest:>9.2g} {row.mean:>9.2g} {row.spread:>9.2g}")
        alike = count == len(a.plan.steps) == len(b.plan.steps)
        if not alike:
            show(f"layers: the first {count} have the same type and shape, then the networks differ")
        elif first is None:
            show(f"layers: all {count} agree")
        return first

    def _outputs(self, outputs: list[tuple[Tensor, ...]], show: Show) -> bool | None:
        """Return whether the outputs are close, None if their shapes differ."""
        mine, theirs = ([each.float().numpy() for each in found] for found in outputs)
        if [each.shape for each in mine] != [each.shape for each in theirs]:
            show("outputs: not compared, their shapes differ")
            return None
        error = difference(mine, theirs, "raw")
        show(f"outputs: largest difference {error:.2g}, relative to their size")
        return error <= _CLOSE

    def _boxes(
        self, outputs: list[tuple[Tensor, ...]], letterbox: Letterbox, conf: float, show: Show
    ) -> BoxMatches | None:
        found = [
            Detector(model).postprocess((output,), [letterbox], NmsOptions(conf=conf))[0]
            for model, output in zip(self.models, outputs, strict=True)
            if model.plan.box_heads
        ]
        if len(found) < 2:
            return None
        matches = box_matches(found[0], found[1])
        text = f"{matches.same} the same, {matches.only_a} only in the first, {matches.only_b} only in the second"
        if matches.paired:
            text += f"; overlap at least {matches.least_overlap:.4f}, scores within {matches.largest_score:.4f}"
        show(f"boxes above {conf:g}: {text}")
        return matches


def _opened(side: Side, size_wh: tuple[int, int] | None) -> Runnable:
    width, height = size_wh or (None, None)
    reading = LoadOptions(cfg=side.cfg, width=width, height=height, own_cfg=True)
    network = open_network(side.path, reading, side.backend)[0]
    if isinstance(network, Network) and side.backend in ENGINES:
        return EngineNetwork(network.fold(), side.backend, torch.device("cpu"), required=True)
    return network


def _verdict(differs: LayerDifference | None, close: bool | None, matches: BoxMatches | None) -> Verdict:
    if differs is not None:
        return Verdict(False, f"verdict: they differ from layer {differs.index} [{differs.name}] on")
    if matches is not None and (matches.only_a or matches.only_b):
        return Verdict(False, "verdict: their boxes differ")
    if close is False:
        return Verdict(False, "verdict: their outputs differ")
    if close is None and (matches is None or not matches.same):
        why = "" if matches is None else ": no boxes; use an image with objects (--image) or a lower --conf-thres"
        return Verdict(False, f"verdict: nothing could be compared{why}")
    return Verdict(True, "verdict: the same up to rounding")

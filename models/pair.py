"""Two models of any format side by side on one picture (convert.py compare)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.backends.choice import Run, is_exported, open_exported
from models.backends.exported import ExportedDetector, ExportedModel
from models.comparison import BoxMatches, LayerDifference, box_matches, layer_differences
from models.detector import Detector, Selection
from models.export.verify import difference
from models.formats.files import Reading, load_model
from models.heads.base import BoxSection
from models.network import Network
from utils.geometry import Fit
from utils.resize import network_input

_CLOSE = 1e-3  # difference of outputs, relative to their size, that counts as rounding
Show = Callable[[str], Any]


class Side(NamedTuple):
    """A model: its file, the cfg of files that have none inside, and what runs it."""

    path: str
    cfg: str | None = None
    backend: str | None = None


class Verdict(NamedTuple):
    same: bool
    text: str


class Pair:
    """Models `a` and `b` at one input size: the one given, else that of `a`. Raises InputError for what cannot be opened."""

    def __init__(self, a: Side, b: Side, size_wh: tuple[int, int] | None = None) -> None:
        self.sides = (a, b)
        first = _opened(a, size_wh)
        self.size_wh = (first.plan.input.width, first.plan.input.height)
        self.models = (first, _opened(b, self.size_wh))
        self.channels = first.plan.input.channels

    def describe(self) -> str:
        """What is compared, in a line."""
        return f"{self.sides[0].path} and {self.sides[1].path} at {self.size_wh[0]}x{self.size_wh[1]}"

    def random_picture(self) -> NDArray[np.uint8]:
        """Random values of the input's size, the same every time."""
        width, height = self.size_wh
        return np.random.default_rng(0).integers(0, 256, (height, width, self.channels), np.uint8)

    def compare(self, picture: NDArray[np.uint8], *, conf: float, every_layer: bool, show: Show) -> Verdict:
        """Layers where both have them, then outputs, then boxes above `conf`; picture uint8 (height, width, channels).

        `show` is given the lines of the report.
        """
        net = self.models[0].plan.net
        fit = Fit(picture_wh=(picture.shape[1], picture.shape[0]), network_wh=self.size_wh, letter_box=net.letter_box)
        images = torch.from_numpy(network_input(picture, fit))[None]
        parted = self._layers(images, every_layer, show)
        with torch.inference_mode():
            outputs = [tuple(model(images)) for model in self.models]
        close = self._outputs(outputs, show)
        matches = self._boxes(outputs, fit, conf, show)
        return _verdict(parted, close, matches)

    def _layers(self, images: Tensor, every_layer: bool, show: Show) -> LayerDifference | None:
        """The first layer whose difference rounding does not explain."""
        a, b = self.models
        if isinstance(a, ExportedModel) or isinstance(b, ExportedModel):
            show("layers: an exported model has its outputs only")
            return None
        first, count = None, 0
        show(f"{'layer':>5} {'type':<16} {'largest':>9} {'mean':>9} {'spread':>9}")
        for row in layer_differences(a, b, images):
            count += 1
            first = first or (row if row.parted else None)
            if every_layer or row is first:
                show(f"{row.index:>5} {row.name:<16} {row.largest:>9.2g} {row.mean:>9.2g} {row.spread:>9.2g}")
        alike = count == len(a.plan.steps) == len(b.plan.steps)
        if not alike:
            show(f"layers: the first {count} are of the same type and shape, then the networks differ")
        elif first is None:
            show(f"layers: all {count} agree")
        return first

    def _outputs(self, outputs: list[tuple[Tensor, ...]], show: Show) -> bool | None:
        """Whether they are close; None if the two models give different things."""
        mine, theirs = ([each.float().numpy() for each in found] for found in outputs)
        if [each.shape for each in mine] != [each.shape for each in theirs]:
            show("outputs: of different shapes, not compared")
            return None
        error = difference(mine, theirs, "raw")
        show(f"outputs: largest difference {error:.2g}, relative to their size")
        return error <= _CLOSE

    def _boxes(self, outputs: list[tuple[Tensor, ...]], fit: Fit, conf: float, show: Show) -> BoxMatches | None:
        detectors = [_detector(model) for model in self.models]
        found = [
            detector.detections(output, [fit], Selection(conf=conf))[0]
            for detector, output in zip(detectors, outputs, strict=True)
            if detector is not None
        ]
        if len(found) < 2:
            return None
        matches = box_matches(found[0], found[1])
        text = f"{matches.same} the same, {matches.only_a} only in the first, {matches.only_b} only in the second"
        if matches.paired:
            text += f"; overlap at least {matches.least_overlap:.4f}, scores within {matches.largest_score:.4f}"
        show(f"boxes above {conf:g}: {text}")
        return matches


def _opened(side: Side, size_wh: tuple[int, int] | None) -> Network | ExportedModel:
    width, height = size_wh or (None, None)
    reading = Reading(cfg=side.cfg, width=width, height=height, own_cfg=True)
    if is_exported(side.path):
        return open_exported(side.path, Run(backend=side.backend, reading=reading))
    return load_model(side.path, reading).network


def _detector(model: Network | ExportedModel) -> Detector | None:
    if not any(isinstance(step.section, BoxSection) for step in model.plan.heads):
        return None
    return ExportedDetector(model) if isinstance(model, ExportedModel) else Detector(model)


def _verdict(parted: LayerDifference | None, close: bool | None, matches: BoxMatches | None) -> Verdict:
    if parted is not None:
        return Verdict(False, f"verdict: they part at layer {parted.index} [{parted.name}]")
    if matches is not None and (matches.only_a or matches.only_b):
        return Verdict(False, "verdict: their boxes differ")
    if close is False:
        return Verdict(False, "verdict: their outputs differ")
    if close is None and (matches is None or not matches.same):
        why = "" if matches is None else ": no boxes; take a picture with objects (--image) or a lower --conf-thres"
        return Verdict(False, f"verdict: nothing that both give could be compared{why}")
    return Verdict(True, "verdict: the same but for rounding")

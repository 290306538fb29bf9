"""From outputs of the heads to detections in pixels of the original images (detector.c test_detector)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.heads.base import Candidates, Head
from models.layers.base import Layer
from models.plan import Plan
from utils.detections import Detections
from utils.errors import InputError
from utils.letterbox import Letterbox
from utils.nms import suppress


class Runnable(Protocol):
    """A Network, or an exported model that stands for one.

    Called with images (n, channels, height, width) it returns the outputs of the heads, or for exported models with boxes
    inside these. Of the layers, those that are heads are used.
    """

    @property
    def plan(self) -> Plan: ...

    @property
    def __call__(self) -> Any: ...

    def __iter__(self) -> Iterator[Layer]: ...


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which boxes are kept.

    conf: least score, exclusive as in the original. iou: overlap above which the weaker box goes. agnostic: suppress across
    classes. max_det: most boxes of an image, the best ones; None: all. classes: the classes wanted; None: all.
    list_above: also say where each box stands in the list that the original, at this threshold, leaves after suppression.
    """

    conf: float = 0.25
    iou: float = 0.45
    agnostic: bool = False
    max_det: int | None = None
    classes: tuple[int, ...] | None = None
    list_above: float | None = None


class Detector:
    """Decoding and suppression for one network, as its cfg says. Raises InputError for a cfg without boxes."""

    def __init__(self, network: Runnable) -> None:
        plan = network.plan
        with_boxes = {step.index for step in plan.box_heads}
        if not with_boxes:
            raise InputError(
                f"{plan.cfg.path}: has no layer that gives boxes, expected [yolo], [region] or [detection]"
            )
        layers = list(network)
        self._heads = [layers[step.index] if step.index in with_boxes else None for step in plan.heads]
        last = plan.box_sections[-1]
        self.classes = last.classes
        # The original asks the last layer only (detector.c: layer l = net.layers[net.n - 1]).
        self._kind, self._beta = last.suppression()

    def candidates(self, outputs: Sequence[Tensor], conf: float, size_wh: tuple[int, int]) -> Candidates:
        """Boxes above `conf` of all heads of a batch; outputs as `network(images)` gives them."""
        found = [
            head.decode(output, conf, size_wh)
            for head, output in zip(self._heads, outputs, strict=True)
            if isinstance(head, Head)
        ]
        if len(found) == 1:
            return found[0]
        return Candidates(
            image=torch.cat([each.image for each in found]),
            cxcywh_rel=torch.cat([each.cxcywh_rel for each in found]),
            scores=torch.cat([each.scores for each in found]),
            objectness=torch.cat([each.objectness for each in found]),
        )

    def detections(
        self, outputs: Sequence[Tensor], fits: Sequence[Letterbox], selection: Selection
    ) -> list[Detections]:
        """Detections of each image of a batch, in its own pixels, best first. `fits` has an entry for every image."""
        return self.choose(self.candidates(outputs, selection.conf, fits[0].network_wh), fits, selection)

    def choose(self, found: Candidates, fits: Sequence[Letterbox], selection: Selection) -> list[Detections]:
        """Suppression alone: detections of each image from the candidates of a batch."""
        if selection.classes is not None:
            wanted = torch.zeros(found.scores.shape[1], dtype=torch.bool, device=found.scores.device)
            wanted[[each for each in selection.classes if each < len(wanted)]] = True
            found = Candidates(found.image, found.cxcywh_rel, found.scores * wanted, found.objectness)
        return [self._one(found, number, fit, selection) for number, fit in enumerate(fits)]

    def _one(self, found: Candidates, number: int, fit: Letterbox, selection: Selection) -> Detections:
        mine = found.image == number
        # Suppression works on boxes relative to the image (network.c get_network_boxes corrects them first).
        boxes = fit.to_image_rel(found.cxcywh_rel[mine])
        kept = suppress(
            boxes,
            found.scores[mine],
            selection.iou,
            kind=self._kind,
            beta=self._beta,
            agnostic=selection.agnostic,
            max_det=selection.max_det,
        )
        listing = None
        if selection.list_above is not None:
            listing = _listing(found.scores[mine].float().cpu().numpy(), selection.list_above)
        xyxy = fit.to_image(found.cxcywh_rel[mine][kept.box_index])
        return Detections(
            xyxy=xyxy.float().cpu().numpy(),
            scores=kept.score.float().cpu().numpy(),
            class_ids=kept.class_id.cpu().numpy().astype(np.int64, copy=False),
            listed=None if listing is None else listing[kept.box_index.cpu().numpy()],
        )


def _listing(scores: NDArray[np.float32], threshold: float) -> NDArray[np.int64]:
    """Place of each box, scores (n, classes), in the original's list after suppression.

    do_nms_sort and diounms_sort (src/box.c) sort all boxes by the scores of one class after the other and leave them so.
    """
    counted = np.where(scores > threshold, scores, 0)
    columns = counted[:, counted.any(axis=0)]
    order = np.lexsort(-columns.T) if columns.size else np.arange(len(scores))
    places = np.empty(len(scores), np.int64)
    places[order] = np.arange(len(scores))
    return places

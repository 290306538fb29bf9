"""From the outputs of the heads to detections in pixels of the original image (detector.c test_detector)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.backends import ExportedModel
from inference.predictor import Model, NmsOptions, Outputs, Runnable
from models.heads.base import Candidates, Head
from utils.detections import Detections
from utils.errors import InputError
from utils.letterbox import Letterbox
from utils.nms import finite, suppress


class Detector(Model):
    """A network whose heads predict boxes; NMS as set in its cfg. Raises InputError for a cfg without such a head."""

    task = "detect"

    def __init__(
        self, network: Runnable, device: torch.device | None = None, *, names: Sequence[str] = (), half: bool = False
    ) -> None:
        plan = network.plan
        if not plan.box_heads:
            raise InputError(f"{plan.cfg.path}: has no detection head, expected [yolo], [region] or [detection]")
        super().__init__(network, device, names=names, half=half)
        # In the order of the network's outputs: heads with boxes, None for others.
        self._heads = [
            layer if step in plan.box_heads and isinstance(layer, Head) else None
            for step, layer in zip(plan.steps, network, strict=True)
            if step in plan.heads
        ]
        last = plan.box_sections[-1]
        self.classes = last.classes
        # The original uses the setting of the last layer (detector.c: layer l = net.layers[net.n - 1]).
        self._kind, self._beta = last.suppression()

    def postprocess(self, outputs: Outputs, letterboxes: Sequence[Letterbox], options: NmsOptions) -> list[Detections]:
        """Return the Detections of each image of a batch, in pixels of that image, best first."""
        views = [self.candidates(view, options.conf) for view in outputs]
        found = _joined([views[0], *map(_mirrored, views[1:])])
        if options.classes is not None:
            wanted = torch.zeros(found.scores.shape[1], dtype=torch.bool, device=found.scores.device)
            wanted[[each for each in options.classes if each < len(wanted)]] = True
            found = Candidates(found.image, found.cxcywh_rel, found.scores * wanted, found.objectness)
        return [self._one(found, number, letterbox, options) for number, letterbox in enumerate(letterboxes)]

    def candidates(self, outputs: Sequence[Tensor], conf: float) -> Candidates:
        """Return all boxes of a batch above `conf`. outputs: of `network(images)`."""
        if isinstance(self.network, ExportedModel) and self.network.metadata.outputs != "raw":
            return self.network.candidates(outputs, conf, self.classes)
        return _joined(
            [
                head.decode(output, conf, self.size_wh)
                for head, output in zip(self._heads, outputs, strict=True)
                if head is not None
            ]
        )

    def _one(self, found: Candidates, number: int, letterbox: Letterbox, options: NmsOptions) -> Detections:
        mine = found.image == number
        # NMS works on boxes relative to the image (network.c get_network_boxes corrects them first).
        boxes = letterbox.to_image_rel(found.cxcywh_rel[mine])
        if options.in_pixels:
            boxes = boxes * boxes.new_tensor(letterbox.image_wh).repeat(2)
        kept = suppress(
            boxes,
            found.scores[mine],
            options.iou,
            kind=self._kind,
            beta=self._beta,
            agnostic=options.agnostic or options.single_class,
            max_det=options.max_det,
        )
        ranks = None
        if options.rank_above is not None:
            ranks = _ranks(found.scores[mine].float().cpu().numpy(), options.rank_above)
        class_ids = kept.class_id.cpu().numpy().astype(np.int64, copy=False)
        return Detections(
            xyxy=finite(letterbox.to_image(found.cxcywh_rel[mine][kept.box_index])).cpu().numpy(),
            scores=kept.score.float().cpu().numpy(),
            class_ids=np.zeros_like(class_ids) if options.single_class else class_ids,
            ranks=None if ranks is None else ranks[kept.box_index.cpu().numpy()],
        )


def _joined(parts: Sequence[Candidates]) -> Candidates:
    if len(parts) == 1:
        return parts[0]
    return Candidates(
        image=torch.cat([each.image for each in parts]),
        cxcywh_rel=torch.cat([each.cxcywh_rel for each in parts]),
        scores=torch.cat([each.scores for each in parts]),
        objectness=torch.cat([each.objectness for each in parts]),
    )


def _mirrored(found: Candidates) -> Candidates:
    """Return candidates of mirror images, mirrored back."""
    boxes = found.cxcywh_rel.clone()
    boxes[:, 0] = 1 - boxes[:, 0]
    return Candidates(found.image, boxes, found.scores, found.objectness)


def _ranks(scores: NDArray[np.float32], threshold: float) -> NDArray[np.int64]:
    """Return the rank of each box in the original's list after NMS. scores: (n, classes).

    do_nms_sort and diounms_sort (src/box.c) sort all boxes by the scores of one class after the other and leave them in
    the last order.
    """
    counted = np.where(scores > threshold, scores, 0)
    columns = counted[:, counted.any(axis=0)]
    order = np.lexsort(-columns.T) if columns.size else np.arange(len(scores))
    ranks = np.empty(len(scores), np.int64)
    ranks[order] = np.arange(len(scores))
    return ranks

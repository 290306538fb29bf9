"""The [yolo] layer and the recipes (anchors, loss) that the papers train it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compose.net import Map, Net, Value

TINY_ANCHORS = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"
COCO_ANCHORS = "10,13, 16,30, 33,23, 30,61, 62,45, 59,119, 116,90, 156,198, 373,326"
OPTIMAL_ANCHORS = "12,16, 19,36, 40,28, 36,75, 76,55, 72,146, 142,110, 192,243, 459,401"
CLASSES = 80


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Anchors, which of them each stride uses, and the further [yolo] options of a training recipe.

    `scale_x_y` is by stride, because the coarser the grid the closer a centre may come to a cell's border.
    """

    anchors: str
    masks: Mapping[int, Sequence[int]]
    loss: Mapping[str, Value] = field(default_factory=dict)
    scale_x_y: Mapping[int, float] = field(default_factory=dict)

    def options(self, stride: int) -> dict[str, Value]:
        """The [yolo] options at `stride`."""
        options: dict[str, Value] = {
            "mask": ",".join(map(str, self.masks[stride])),
            "anchors": self.anchors,
            "classes": CLASSES,
            "num": self.anchors.count(",") // 2 + 1,
            "jitter": ".3",
            "ignore_thresh": ".7",
            "truth_thresh": 1,
            "random": 1,
        }
        if stride in self.scale_x_y:
            options["scale_x_y"] = self.scale_x_y[stride]
        return options | dict(self.loss)


TWO_SCALES = {32: (3, 4, 5), 16: (1, 2, 3)}
THREE_SCALES = {32: (6, 7, 8), 16: (3, 4, 5), 8: (0, 1, 2)}
TINY = Recipe(anchors=TINY_ANCHORS, masks=TWO_SCALES)
TINY_ORIGINAL = Recipe(anchors=TINY_ANCHORS, masks={32: (3, 4, 5), 16: (0, 1, 2)})
COCO = Recipe(anchors=COCO_ANCHORS, masks=THREE_SCALES)
SCALES_X_Y = {8: 1.2, 16: 1.1, 32: 1.05}
GIOU = Recipe(
    anchors=COCO_ANCHORS,
    masks=THREE_SCALES,
    loss={"iou_normalizer": 0.5, "iou_loss": "giou"},
    scale_x_y=SCALES_X_Y,
)
OPTIMAL = Recipe(
    anchors=OPTIMAL_ANCHORS,
    masks=THREE_SCALES,
    loss={
        "iou_thresh": 0.213,
        "cls_normalizer": 1.0,
        "iou_normalizer": 0.07,
        "uc_normalizer": 0.07,
        "iou_loss": "ciou",
        "nms_kind": "greedynms",
        "beta_nms": 0.6,
        "beta1": 0.6,
    },
    scale_x_y=SCALES_X_Y,
)


def detect(net: Net, x: Map, recipe: Recipe) -> None:
    """1x1 convolution to anchors x (box, objectness, classes), and the [yolo] layer at the stride of `x`."""
    stride = x.stride
    filters = len(recipe.masks[stride]) * (5 + CLASSES)
    net.yolo(net.conv(x, filters, activation="linear", normalize=False), recipe.options(stride))

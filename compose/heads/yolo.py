"""The classifier, the [yolo] layer with its training recipes, and the published heads: YOLOv3, YOLOv3-tiny, PANet-SPP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from compose.blocks import spatial_pyramid, tower
from compose.net import Features, Map, Net, Value

TINY_ANCHORS = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"
COCO_ANCHORS = "10,13, 16,30, 33,23, 30,61, 62,45, 59,119, 116,90, 156,198, 373,326"
OPTIMAL_ANCHORS = "12,16, 19,36, 40,28, 36,75, 76,55, 72,146, 142,110, 192,243, 459,401"
COCO_CLASSES = 80


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Anchors, the masks that assign them to strides, and further [yolo] options; `scale_x_y` is given per stride."""

    anchors: str
    masks: Mapping[int, Sequence[int]]
    loss: Mapping[str, Value] = field(default_factory=dict)
    scale_x_y: Mapping[int, float] = field(default_factory=dict)

    def options(self, stride: int) -> dict[str, Value]:
        """The [yolo] options at `stride`."""
        options: dict[str, Value] = {
            "mask": ",".join(map(str, self.masks[stride])),
            "anchors": self.anchors,
            "classes": COCO_CLASSES,
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
GIOU = replace(COCO, loss={"iou_normalizer": 0.5, "iou_loss": "giou"}, scale_x_y=SCALES_X_Y)
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
    """1x1 convolution to anchors x (box, objectness, classes), followed by the [yolo] layer at the stride of `x`."""
    stride = x.stride
    filters = len(recipe.masks[stride]) * (5 + COCO_CLASSES)
    net.yolo(net.conv(x, filters, activation="linear", normalize=False), recipe.options(stride))


def classifier(net: Net, features: Features, *, classes: int = 1000, dropout: float = 0.0) -> None:
    """Global average pooling of the coarsest map, 1x1 convolution to the classes, softmax."""
    net.part("classifier")
    x = net.avgpool(features.last)
    if dropout:
        x = net.dropout(x, dropout)
    net.softmax(net.conv(x, classes, activation="linear", normalize=False))


def yolov3(net: Net, features: Features, *, pyramid: bool = False) -> None:
    """Alternating 1x1 and 3x3 at /32, /16 and /8, each scale concatenated with the backbone; `pyramid` adds SPP."""
    finest, fine, coarse = features.take("yolov3", (8, 16, 32))
    net.part("head at /32")
    x = tower(net, coarse, 512, 3 if pyramid else 5)
    if pyramid:
        x = tower(net, spatial_pyramid(net, x), 512, 3)
    detect(net, net.conv(x, 1024, 3), COCO)
    _up(net, _up(net, x, fine, 256), finest, 128)


def yolov3_tiny(net: Net, features: Features) -> None:
    """Two scales, /32 and /16, one 3x3 each."""
    fine, coarse = features.take("yolov3-tiny", (16, 32))
    net.part("head at /32")
    x = net.conv(coarse, 256)
    detect(net, net.conv(x, 512, 3), TINY_ORIGINAL)
    net.part("head at /16")
    up = net.upsample(net.conv(x, 128))
    detect(net, net.conv(net.route(up, fine), 256, 3), TINY_ORIGINAL)


def panet_spp(net: Net, features: Features, recipe: Recipe = COCO) -> None:
    """SPP at /32, a path up to /8, and a path back down to /32 with a [yolo] layer at each scale."""
    finest, fine, coarse = features.take("panet-spp", (8, 16, 32))
    net.part("neck: spatial pyramid pooling at /32")
    top = tower(net, spatial_pyramid(net, tower(net, coarse, 512, 3)), 512, 3)
    net.part("neck: path up to /16")
    middle = tower(net, _merge_up(net, top, fine, 256), 256, 5)
    net.part("neck: path up to /8")
    x = tower(net, _merge_up(net, middle, finest, 128), 128, 5)
    net.part("head at /8")
    detect(net, net.conv(x, 256, 3), recipe)
    net.part("head at /16, reached by the path down")
    x = tower(net, _merge_down(net, x, middle, 256), 256, 5)
    detect(net, net.conv(x, 512, 3), recipe)
    net.part("head at /32, reached by the path down")
    x = tower(net, _merge_down(net, x, top, 512), 512, 5)
    detect(net, net.conv(x, 1024, 3), recipe)


def _up(net: Net, x: Map, lateral: Map, width: int) -> Map:
    net.part(f"head at /{lateral.stride}")
    up = net.upsample(net.conv(x, width))
    x = tower(net, net.route(up, lateral), width, 5)
    detect(net, net.conv(x, 2 * width, 3), COCO)
    return x


def _merge_up(net: Net, coarse: Map, lateral: Map, filters: int) -> Map:
    up = net.upsample(net.conv(coarse, filters))
    return net.route(net.conv(lateral, filters), up)


def _merge_down(net: Net, fine: Map, lateral: Map, filters: int) -> Map:
    return net.route(net.conv(fine, filters, 3, stride=2), lateral)

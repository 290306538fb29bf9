"""Every cfg of the project: file name, backbone, head, input size and training settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compose.training import (
    Training,
    cifar,
    coco,
    coco_optimal,
    efficientnet_imagenet,
    imagenet,
    residual_imagenet,
)

DENSE, RESIDUAL = imagenet, residual_imagenet


@dataclass(frozen=True, kw_only=True)
class Model:
    """One cfg: keys of compose.parts, input side in pixels, training settings, and the default activation."""

    backbone: str
    head: str
    side: int
    training: Training
    activation: str = "leaky"


def _classifier(backbone: str, side: int = 224, training: Training = DENSE, activation: str = "leaky") -> Model:
    return Model(backbone=backbone, head="classifier", side=side, training=training, activation=activation)


def _detector(backbone: str, head: str, side: int = 416, training: Training = coco, activation: str = "leaky") -> Model:
    return Model(backbone=backbone, head=head, side=side, training=training, activation=activation)


MODELS: Mapping[str, Model] = {
    # CSPNet, ImageNet: Pelee family (Tables 1 and 3)
    "peleenet": _classifier("peleenet"),
    "peleenet-swish": _classifier("peleenet", activation="swish"),
    "peleenet-se": _classifier("peleenet-se"),
    "peleenet-swish-se": _classifier("peleenet-se", activation="swish"),
    "speleenet": _classifier("speleenet"),
    "peleenext": _classifier("peleenext"),
    "csppeleenet-first-g25": _classifier("csppeleenet-first-g25"),
    "csppeleenet-first-g50": _classifier("csppeleenet-first-g50"),
    "csppeleenet-first-g75": _classifier("csppeleenet-first-g75"),
    "csppeleenet-last-g25": _classifier("csppeleenet-last-g25"),
    "csppeleenet-last-g50": _classifier("csppeleenet-last-g50"),
    "csppeleenet-last-g75": _classifier("csppeleenet-last-g75"),
    "csppeleenet-g25": _classifier("csppeleenet-g25"),
    "csppeleenet": _classifier("csppeleenet"),
    "csppeleenet-g75": _classifier("csppeleenet-g75"),
    "csppeleenet-swish": _classifier("csppeleenet", activation="swish"),
    "csppeleenet-se": _classifier("csppeleenet-se"),
    "csppeleenet-swish-se": _classifier("csppeleenet-se", activation="swish"),
    # CSPNet, ImageNet: the others (Table 3)
    "darknet-ref": _classifier("darknet-ref", 256, RESIDUAL),
    "csppeleenet-ref": _classifier("csppeleenet-ref"),
    "csppeleenetb-ref": _classifier("csppeleenetb-ref"),
    "cspdensenet-ref": _classifier("cspdensenet-ref"),
    "cspdensenetb-ref": _classifier("cspdensenetb-ref"),
    "efficientnet-b0": Model(
        backbone="efficientnet-b0", head="classifier-dropout", side=224, training=efficientnet_imagenet
    ),
    "resnet10": _classifier("resnet10", 256, RESIDUAL),
    "cspresnet10": _classifier("cspresnet10", 256, RESIDUAL),
    "resnext50": _classifier("resnext50", 256, RESIDUAL),
    "csresnext50": _classifier("csresnext50", 256, RESIDUAL),
    "resnet152": _classifier("resnet152", training=RESIDUAL),
    "res2net50": _classifier("res2net50", training=RESIDUAL),
    "densenet264": _classifier("densenet264"),
    "hardnet138s": _classifier("hardnet138s"),
    "densenet201-elastic": _classifier("densenet201-elastic"),
    "cspdensenet201-elastic": _classifier("cspdensenet201-elastic"),
    # VoVNet, ImageNet and CIFAR-10
    "vovnet27-slim": _classifier("vovnet27-slim"),
    "vovnet39": _classifier("vovnet39"),
    "vovnet57": _classifier("vovnet57"),
    "densenet40": Model(backbone="densenet40", head="classifier-cifar", side=32, training=cifar),
    "densenet40-osa": Model(backbone="densenet40-osa", head="classifier-cifar", side=32, training=cifar),
    # CSPNet, COCO: baselines (Table 4)
    "yolov3": _detector("darknet53", "yolov3"),
    "yolov3-spp": _detector("darknet53", "yolov3-spp", 608),
    "yolov3-tiny": _detector("tiny", "yolov3-tiny"),
    "yolov3-tiny-prn": _detector("tiny-partial", "prn"),
    "peleenet-yolov3": _detector("peleenet", "yolov3"),
    "peleenet-prn": _detector("peleenet", "prn"),
    "peleenet-prn31": _detector("peleenet", "prn31"),
    # CSPNet, COCO: CSPResNeXt-50
    "csresnext50-panet-spp": _detector("csresnext50", "panet-spp"),
    "csresnext50-panet-spp-original-optimal": _detector("csresnext50", "panet-spp-optimal", 512, coco_optimal),
    "csresnext50-yolov3": _detector("csresnext50", "yolov3"),
    "csresnext50-prn": _detector("csresnext50", "prn"),
    "csresnext50-efm": _detector("csresnext50", "efm"),
    # CSPNet, COCO: CSPPeleeNet (Table 2)
    "csppeleenet-yolov3": _detector("csppeleenet", "yolov3"),
    "csppeleenet-panet-spp": _detector("csppeleenet", "panet-spp"),
    "csppeleenet-prn": _detector("csppeleenet", "prn"),
    "csppeleenet-prn-swish": _detector("csppeleenet", "prn", activation="swish"),
    "csppeleenet-prn31": _detector("csppeleenet", "prn31"),
    "csppeleenet-cem": _detector("csppeleenet", "cem"),
    "csppeleenet-cem-sam": _detector("csppeleenet", "cem-sam"),
    "csppeleenet-gfm": _detector("csppeleenet", "gfm-pelee"),
    "csppeleenet-efm": _detector("csppeleenet", "efm-pelee"),
    "csppeleenet-efm-plain": _detector("csppeleenet", "efm-pelee-plain"),
    "csppeleenet-efm-spp": _detector("csppeleenet", "efm-pelee-spp"),
    "csppeleenet-efm-giou": _detector("csppeleenet", "efm-pelee-giou"),
    # CSPNet, COCO: the Reference networks (Table 4)
    "csppeleenet-ref-prn": _detector("csppeleenet-ref", "prn", 320),
    "csppeleenet-ref-prn31": _detector("csppeleenet-ref", "prn31", 320),
    "csppeleenet-ref-efm": _detector("csppeleenet-ref", "efm-ref", 320),
    "cspdensenet-ref-yolov3": _detector("cspdensenet-ref", "yolov3", 320),
    "cspdensenet-ref-panet-spp": _detector("cspdensenet-ref", "panet-spp", 320),
    "cspdensenet-ref-prn": _detector("cspdensenet-ref", "prn", 320),
    "cspdensenet-ref-efm": _detector("cspdensenet-ref", "efm-ref", 320),
    "cspdensenetb-ref-prn": _detector("cspdensenetb-ref", "prn", 320),
    # VoVNet, COCO
    "vovnet27-slim-yolov3": _detector("vovnet27-slim", "yolov3"),
    "vovnet27-slim-efm": _detector("vovnet27-slim", "efm"),
    "vovnet39-yolov3": _detector("vovnet39", "yolov3"),
    "vovnet39-efm": _detector("vovnet39", "efm"),
    "vovnet57-yolov3": _detector("vovnet57", "yolov3"),
    "vovnet57-efm": _detector("vovnet57", "efm"),
}

"""The catalog of the project's cfgs (file name, backbone, head, input size, training settings), and their text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compose.backbones import BACKBONES
from compose.heads import HEADS
from compose.net import Net, Origin, Section, write_sections
from compose.training import (
    Training,
    cifar,
    coco,
    coco_light,
    coco_optimal,
    coco_original,
    efficientnet_imagenet,
    halved_imagenet,
    imagenet,
    light_imagenet,
    published_imagenet,
    vovnet_imagenet,
)
from models.plan import make_plan
from models.summary import totals
from utils import cfg
from utils.errors import InputError

ORIGINS: Mapping[Origin, str] = {
    "cfg": "as published by its authors as a Darknet cfg",
    "public": "public, from the authors' code or the table of their paper",
    "figure": "read off Figure 7 of CSPNet, which plots the cost of every layer; no width is fitted",
    "derived": "derived from a paper's description; no width is fitted",
    "fitted": "not public; follows the paper's description, with widths fitted to the printed totals",
}


@dataclass(frozen=True)
class Model:
    """A cfg: key of BACKBONES, key of HEADS, input side in pixels, training settings, default activation."""

    backbone: str
    head: str
    side: int
    training: Training
    activation: str = "leaky"


def _classifier(backbone: str, side: int = 224, training: Training = imagenet, activation: str = "leaky") -> Model:
    return Model(backbone, "classifier", side, training, activation)


def _detector(backbone: str, head: str, side: int = 416, training: Training = coco, activation: str = "leaky") -> Model:
    return Model(backbone, head, side, training, activation)


MODELS: Mapping[str, Model] = {
    # CSPNet, ImageNet: Pelee family (Tables 1 and 3)
    "peleenet": _classifier("peleenet"),
    "peleenet-swish": _classifier("peleenet", activation="swish"),
    "peleenet-se": _classifier("peleenet-se"),
    "peleenet-swish-se": _classifier("peleenet-se", activation="swish"),
    "speleenet": _classifier("speleenet"),
    "peleenext": _classifier("peleenext"),
    **{f"csppeleenet-{name}": _classifier(f"csppeleenet-{name}") for name in ("first-g25", "first-g50", "first-g75")},
    **{f"csppeleenet-{name}": _classifier(f"csppeleenet-{name}") for name in ("last-g25", "last-g50", "last-g75")},
    "csppeleenet-g25": _classifier("csppeleenet-g25"),
    "csppeleenet": _classifier("csppeleenet"),
    "csppeleenet-g75": _classifier("csppeleenet-g75"),
    "csppeleenet-swish": _classifier("csppeleenet", activation="swish"),
    "csppeleenet-se": _classifier("csppeleenet-se"),
    "csppeleenet-swish-se": _classifier("csppeleenet-se", activation="swish"),
    # CSPNet, ImageNet: the others (Table 3 and the authors' README)
    "darknet-ref": _classifier("darknet-ref", 256, light_imagenet),
    "csppeleenet-ref": _classifier("csppeleenet-ref"),
    "csppeleenetb-ref": _classifier("csppeleenetb-ref"),
    "cspdensenet-ref": _classifier("cspdensenet-ref"),
    "cspdensenetb-ref": _classifier("cspdensenetb-ref"),
    "efficientnet-b0": Model("efficientnet-b0", "classifier-dropout", 224, efficientnet_imagenet),
    "mobilenet-v2": _classifier("mobilenet-v2", training=halved_imagenet),
    "csmobilenet-v2": _classifier("csmobilenet-v2", training=halved_imagenet),
    "resnet10": _classifier("resnet10", 256, light_imagenet),
    "cspresnet10": _classifier("cspresnet10", 256, light_imagenet),
    "resnet50": _classifier("resnet50", 256, published_imagenet),
    "csresnet50": _classifier("csresnet50", 256, published_imagenet),
    "resnet101": _classifier("resnet101", 256, halved_imagenet),
    "csresnet101": _classifier("csresnet101", 256, halved_imagenet),
    "resnext50": _classifier("resnext50", 256, published_imagenet),
    "csresnext50": _classifier("csresnext50", 256, published_imagenet),
    "darknet53": _classifier("darknet53", 256, published_imagenet),
    "csdarknet53": _classifier("csdarknet53", 256, published_imagenet),
    "resnet152": _classifier("resnet152", training=published_imagenet),
    "res2net50": _classifier("res2net50", training=published_imagenet),
    "res2next50": _classifier("res2next50", training=published_imagenet),
    "densenet161": _classifier("densenet161"),
    "densenet201": _classifier("densenet201", 256, light_imagenet),
    "densenet264": _classifier("densenet264"),
    "hardnet138s": _classifier("hardnet138s"),
    "densenet201-elastic": _classifier("densenet201-elastic"),
    "cspdensenet201-elastic": _classifier("cspdensenet201-elastic"),
    # VoVNet, ImageNet and CIFAR-10
    **{name: _classifier(name, training=vovnet_imagenet) for name in BACKBONES if name.startswith("vovnet")},
    "densenet40": Model("densenet40", "classifier-cifar", 32, cifar),
    "densenet40-osa": Model("densenet40-osa", "classifier-cifar", 32, cifar),
    "densenet40-osa-12x20": Model("densenet40-osa-12x20", "classifier-cifar", 32, cifar),
    # CSPNet and PRN, COCO: baselines (Table 4)
    "yolov3": _detector("darknet53", "yolov3", training=coco_original),
    "yolov3-spp": _detector("darknet53", "yolov3-spp", 608, coco_original),
    "yolov3-tiny": _detector("tiny", "yolov3-tiny", training=coco_light),
    "yolov3-tiny-prn": _detector("tiny-partial", "prn", training=coco_light),
    "efficientnet-b0-prn": _detector("efficientnet-b0", "prn", training=coco_light),
    "peleenet-yolov3": _detector("peleenet", "yolov3"),
    "peleenet-yolov3-tiny": _detector("peleenet", "yolov3-tiny-pelee", training=coco_light),
    "peleenet-fpn": _detector("peleenet", "fpn", training=coco_light),
    "peleenet-pan": _detector("peleenet", "pan", training=coco_light),
    "peleenet-prn": _detector("peleenet", "prn", training=coco_light),
    "peleenet-prn3l": _detector("peleenet", "prn3l", training=coco_light),
    "partialpeleenet-prn": _detector("partialpeleenet", "prn", training=coco_light),
    "speleenet-prn": _detector("speleenet", "prn", training=coco_light),
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
    "csppeleenet-prn3l": _detector("csppeleenet", "prn3l"),
    "csppeleenet-cem": _detector("csppeleenet", "cem"),
    "csppeleenet-cem-sam": _detector("csppeleenet", "cem-sam"),
    "csppeleenet-gfm": _detector("csppeleenet", "gfm"),
    "csppeleenet-efm": _detector("csppeleenet", "efm"),
    "csppeleenet-efm-plain": _detector("csppeleenet", "efm-plain"),
    "csppeleenet-efm-spp": _detector("csppeleenet", "efm-spp"),
    "csppeleenet-efm-giou": _detector("csppeleenet", "efm-giou"),
    # CSPNet, COCO: the Reference networks (Table 4)
    "csppeleenet-ref-prn": _detector("csppeleenet-ref", "prn", 320),
    "csppeleenet-ref-prn3l": _detector("csppeleenet-ref", "prn3l", 320),
    "csppeleenet-ref-efm": _detector("csppeleenet-ref", "efm", 320),
    "cspdensenet-ref-yolov3": _detector("cspdensenet-ref", "yolov3", 320),
    "cspdensenet-ref-panet-spp": _detector("cspdensenet-ref", "panet-spp", 320),
    "cspdensenet-ref-prn": _detector("cspdensenet-ref", "prn", 320),
    "cspdensenet-ref-efm": _detector("cspdensenet-ref", "efm", 320),
    "cspdensenetb-ref-prn": _detector("cspdensenetb-ref", "prn", 320),
    # VoVNet, COCO
    "vovnet27-slim-yolov3": _detector("vovnet27-slim", "yolov3"),
    "vovnet27-slim-efm": _detector("vovnet27-slim", "efm"),
    "vovnet39-yolov3": _detector("vovnet39", "yolov3"),
    "vovnet39-efm": _detector("vovnet39", "efm"),
    "vovnet57-yolov3": _detector("vovnet57", "yolov3"),
    "vovnet57-efm": _detector("vovnet57", "efm"),
}


def compose_text(name: str, model: Model) -> str:
    """The complete cfg: header comment, [net], layers.

    Raises InputError if a part is unknown, or if backbone and head do not fit together.
    """
    if model.backbone not in BACKBONES:
        raise InputError(f"no backbone {model.backbone!r}, expected one of: {', '.join(BACKBONES)}")
    if model.head not in HEADS:
        raise InputError(f"no head {model.head!r}, expected one of: {', '.join(HEADS)}")
    backbone, head = BACKBONES[model.backbone], HEADS[model.head]
    net = Net(model.side, model.activation)
    head.build(net, backbone.build(net))
    body = write_sections([Section("net", model.training(model.side)), *net.layers])
    sums = totals(make_plan(cfg.parse(body, f"{name}.cfg")))
    activation = "" if model.activation == "leaky" else f", {model.activation}"
    header = [
        f"{backbone.title} + {head.title}{activation}, {model.side}x{model.side}",
        f"Backbone: {ORIGINS[backbone.origin]}.",
        f"Head: {ORIGINS[head.origin]}.",
        f"{sums['conv_weights'] / 1e6:.4f} M convolution weights ({sums['params'] / 1e6:.4f} M stored values), "
        f"{sums['bflops_paper']:.4f} BFLOPs",
        "counted as CSPNet's tables do: convolutions and pooling.",
    ]
    return "".join(f"# {line}\n" for line in header) + "\n" + body

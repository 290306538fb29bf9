"""The backbones and heads by name, and where the layer table of each comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from compose.backbones import (
    csppeleenet,
    darknet,
    densenet,
    efficientnet,
    hardnet,
    peleenet,
    reference,
    res2net,
    resnet,
    resnext,
    vovnet,
)
from compose.features import Backbone, Features, Head
from compose.heads import cem, efm, gfm, yolo
from compose.heads.classifier import classifier
from compose.heads.panet_spp import panet_spp
from compose.heads.prn import prn, prn_three_scales
from compose.heads.yolov3 import yolov3, yolov3_tiny

Origin = Literal["public", "derived", "tuned"]
ORIGINS: Mapping[Origin, str] = {
    "public": "public, the authors' own layer table",
    "derived": "derived from a paper's description, with no width left free",
    "tuned": "ours: the authors' layer table is not public; free widths were tuned to the printed totals",
}


@dataclass(frozen=True)
class BackbonePart:
    """A backbone, or a form of one."""

    title: str
    origin: Origin
    build: Backbone


@dataclass(frozen=True)
class HeadPart:
    """A head, or a form of one."""

    title: str
    origin: Origin
    build: Head


def _by_gamma(form: str, title: str, build: Callable[..., Features], *gammas: float) -> dict[str, BackbonePart]:
    return {
        f"{form}-g{round(100 * gamma)}": BackbonePart(f"{title}, gamma {gamma}", "tuned", partial(build, gamma=gamma))
        for gamma in gammas
    }


BACKBONES: Mapping[str, BackbonePart] = {
    "peleenet": BackbonePart("PeleeNet", "public", peleenet.peleenet),
    "peleenet-se": BackbonePart("PeleeNet with SE", "tuned", partial(peleenet.peleenet, squeeze=True)),
    "speleenet": BackbonePart("SPeleeNet (SparseNet connections)", "derived", peleenet.speleenet),
    "peleenext": BackbonePart("PeleeNeXt (8 channels a group)", "derived", partial(peleenet.peleenet, group_width=8)),
    **_by_gamma("csppeleenet-first", "PeleeNet, CSP fusion first", csppeleenet.fusion_first, 0.25, 0.5, 0.75),
    **_by_gamma("csppeleenet-last", "PeleeNet, CSP fusion last", csppeleenet.fusion_last, 0.25, 0.5, 0.75),
    **_by_gamma("csppeleenet", "CSPPeleeNet", csppeleenet.csppeleenet, 0.25, 0.75),
    "csppeleenet": BackbonePart("CSPPeleeNet", "tuned", csppeleenet.csppeleenet),
    "csppeleenet-se": BackbonePart("CSPPeleeNet with SE", "tuned", partial(csppeleenet.csppeleenet, squeeze=True)),
    "csppeleenet-ref": BackbonePart("CSPPeleeNet Reference", "tuned", reference.csppeleenet_ref),
    "csppeleenetb-ref": BackbonePart(
        "CSPPeleeNetb Reference", "tuned", partial(reference.csppeleenet_ref, last_size=1)
    ),
    "cspdensenet-ref": BackbonePart("CSPDenseNet Reference", "tuned", reference.cspdensenet_ref),
    "cspdensenetb-ref": BackbonePart(
        "CSPDenseNetb Reference", "tuned", partial(reference.cspdensenet_ref, last_size=1)
    ),
    "darknet-ref": BackbonePart("Darknet Reference", "public", darknet.reference),
    "tiny": BackbonePart("YOLOv3-tiny's backbone", "public", darknet.tiny),
    "tiny-partial": BackbonePart("YOLOv3-tiny's backbone with a 512-wide end", "public", darknet.tiny_partial),
    "darknet53": BackbonePart("Darknet-53", "public", darknet.darknet53),
    "efficientnet-b0": BackbonePart("EfficientNet-B0", "public", efficientnet.efficientnet_b0),
    "resnet10": BackbonePart("ResNet-10", "public", resnet.resnet10),
    "cspresnet10": BackbonePart("CSPResNet-10", "tuned", resnet.cspresnet10),
    "resnet152": BackbonePart("ResNet-152", "public", resnet.resnet152),
    "res2net50": BackbonePart("Res2Net-50 (26w x 4s)", "public", res2net.res2net50),
    "resnext50": BackbonePart("ResNeXt-50", "public", resnext.resnext50),
    "csresnext50": BackbonePart("CSPResNeXt-50", "public", resnext.cspresnext50),
    "densenet40": BackbonePart("DenseNet-40 (k = 12)", "public", densenet.densenet40),
    "densenet40-osa": BackbonePart("DenseNet-40 with OSA modules (5 x 43)", "tuned", vovnet.densenet40_osa),
    "densenet264": BackbonePart("DenseNet-264 (k = 32)", "public", densenet.densenet264),
    "densenet201-elastic": BackbonePart("DenseNet-201-Elastic", "public", densenet.densenet201_elastic),
    "cspdensenet201-elastic": BackbonePart("CSPDenseNet-201-Elastic", "tuned", densenet.cspdensenet201_elastic),
    "hardnet138s": BackbonePart("HarDNet-138s", "tuned", hardnet.hardnet138s),
    "vovnet27-slim": BackbonePart("VoVNet-27-slim", "public", vovnet.vovnet27_slim),
    "vovnet39": BackbonePart("VoVNet-39", "public", vovnet.vovnet39),
    "vovnet57": BackbonePart("VoVNet-57", "public", vovnet.vovnet57),
}

_pelee_efm = partial(efm.efm, widths=efm.PELEE)

HEADS: Mapping[str, HeadPart] = {
    "classifier": HeadPart("ImageNet classifier", "public", classifier),
    "classifier-cifar": HeadPart("CIFAR-10 classifier", "public", partial(classifier, classes=10)),
    "classifier-dropout": HeadPart("ImageNet classifier with dropout", "public", partial(classifier, dropout=0.2)),
    "yolov3": HeadPart("YOLOv3 head", "public", yolov3),
    "yolov3-spp": HeadPart("YOLOv3 head with SPP", "public", partial(yolov3, pyramid=True)),
    "yolov3-tiny": HeadPart("YOLOv3-tiny head", "public", yolov3_tiny),
    "prn": HeadPart("PRN head", "public", prn),
    "prn31": HeadPart("PRN head, three scales", "derived", prn_three_scales),
    "panet-spp": HeadPart("PANet with SPP", "public", panet_spp),
    "panet-spp-optimal": HeadPart("PANet with SPP, CIoU", "public", partial(panet_spp, recipe=yolo.OPTIMAL)),
    "efm": HeadPart("EFM (SAM, Maxout)", "tuned", efm.efm),
    "efm-ref": HeadPart("EFM (SAM, Maxout)", "tuned", partial(efm.efm, widths=efm.REFERENCE)),
    "efm-pelee": HeadPart("EFM (SAM, Maxout)", "tuned", _pelee_efm),
    "efm-pelee-plain": HeadPart("EFM (Maxout)", "tuned", partial(_pelee_efm, attention=False)),
    "efm-pelee-spp": HeadPart("EFM (SPP, Maxout)", "tuned", partial(_pelee_efm, attention=False, pyramid=True)),
    "efm-pelee-giou": HeadPart(
        "EFM (Maxout), GIoU loss", "tuned", partial(_pelee_efm, attention=False, recipe=yolo.GIOU)
    ),
    "gfm": HeadPart("GFM (Maxout)", "tuned", gfm.gfm),
    "gfm-pelee": HeadPart("GFM (Maxout)", "tuned", partial(gfm.gfm, widths=gfm.PELEE)),
    "cem": HeadPart("CEM", "tuned", cem.cem),
    "cem-sam": HeadPart("CEM (SAM)", "tuned", partial(cem.cem, attention=True)),
}

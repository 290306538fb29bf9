"""Every cfg of the project: file name, backbone, head, input size and training settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from compose.backbones.csppeleenet import csppeleenet
from compose.backbones.darknet import tiny_partial
from compose.backbones.resnext import cspresnext50
from compose.features import Backbone, Head
from compose.heads import efm
from compose.heads.panet_spp import panet_spp
from compose.heads.prn import prn
from compose.training import Training, coco

Origin = Literal["public", "derived", "tuned"]
ORIGINS: Mapping[Origin, str] = {
    "public": "the authors' public layer table",
    "derived": "derived from the paper's description, no width free",
    "tuned": "ours: the authors' layer table is not public, free widths were tuned to the printed totals",
}


@dataclass(frozen=True)
class BackbonePart:
    title: str
    origin: Origin
    build: Backbone


@dataclass(frozen=True)
class HeadPart:
    title: str
    origin: Origin
    build: Head


@dataclass(frozen=True, kw_only=True)
class Model:
    """One cfg: keys of BACKBONES and HEADS, input side in pixels, training settings."""

    backbone: str
    head: str
    side: int = 416
    training: Training = coco


BACKBONES: Mapping[str, BackbonePart] = {
    "tiny-partial": BackbonePart("YOLOv3-tiny backbone, 512 wide", "public", tiny_partial),
    "csppeleenet": BackbonePart("CSPPeleeNet, gamma 0.5", "tuned", csppeleenet),
    "csresnext50": BackbonePart("CSPResNeXt-50", "public", cspresnext50),
}

HEADS: Mapping[str, HeadPart] = {
    "prn": HeadPart("partial residual network", "public", prn),
    "panet-spp": HeadPart("PANet with SPP", "public", panet_spp),
    "efm": HeadPart("exact fusion model (SAM, Maxout)", "tuned", efm.efm),
    "efm-pelee": HeadPart("exact fusion model (SAM, Maxout)", "tuned", partial(efm.efm, widths=efm.PELEE)),
}

MODELS: Mapping[str, Model] = {
    "yolov3-tiny-prn": Model(backbone="tiny-partial", head="prn"),
    "csresnext50-panet-spp": Model(backbone="csresnext50", head="panet-spp"),
    "csppeleenet-prn": Model(backbone="csppeleenet", head="prn"),
    "csppeleenet-efm": Model(backbone="csppeleenet", head="efm-pelee"),
}

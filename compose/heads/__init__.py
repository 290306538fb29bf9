"""The heads by name; each is a function that adds a classifier or a detection head to a backbone's Features."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from compose.heads import fusion, prn, yolo
from compose.net import Head

_efm_plain = partial(fusion.efm, attention=False)

HEADS: Mapping[str, Head] = {
    "classifier": Head("ImageNet classifier", "cfg", yolo.classifier),
    "classifier-dropout": Head("ImageNet classifier with dropout", "cfg", partial(yolo.classifier, dropout=0.2)),
    "classifier-cifar": Head("CIFAR-10 classifier", "public", partial(yolo.classifier, classes=10)),
    "yolov3": Head("YOLOv3 head", "cfg", yolo.yolov3),
    "yolov3-spp": Head("YOLOv3 head with SPP", "cfg", partial(yolo.yolov3, pyramid=True)),
    "yolov3-tiny": Head("YOLOv3-tiny head", "cfg", yolo.yolov3_tiny),
    "panet-spp": Head("PANet with SPP", "cfg", yolo.panet_spp),
    "panet-spp-optimal": Head("PANet with SPP, CIoU", "cfg", partial(yolo.panet_spp, recipe=yolo.OPTIMAL)),
    "prn": Head("PRN head", "cfg", prn.prn),
    "prn3l": Head("PRN head, three scales", "derived", prn.prn_three_scales),
    "yolov3-tiny-pelee": Head("YOLOv3-tiny's form of the PRN head", "derived", prn.concatenated),
    "fpn": Head("FPN form of the PRN head", "derived", partial(prn.concatenated, dense=False)),
    "pan": Head("PAN form of the PRN head", "fitted", prn.path_aggregation),
    "cem": Head("CEM", "fitted", fusion.cem),
    "cem-sam": Head("CEM (SAM)", "fitted", partial(fusion.cem, attention=True)),
    "gfm": Head("GFM (Maxout)", "fitted", fusion.gfm),
    "efm": Head("EFM (SAM, Maxout)", "figure", fusion.efm),
    "efm-plain": Head("EFM (Maxout)", "figure", _efm_plain),
    "efm-spp": Head("EFM (SPP, Maxout)", "fitted", partial(_efm_plain, pyramid=True)),
    "efm-giou": Head("EFM (Maxout), GIoU loss", "figure", partial(_efm_plain, recipe=yolo.GIOU)),
}

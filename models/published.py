"""Weights that their authors have published: where, how large, how good; nothing is downloaded unless asked for.

Addresses, sizes and precisions are those of the authors' own pages (AlexeyAB/darknet, pjreddie.com, PartialResidualNetworks,
CrossStagePartialNetworks). AP50 and AP are on COCO test-dev in percent, "top1" on ImageNet. The files belong to their authors.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from models.download import ExpectedFile
from utils.errors import InputError

_ALEXEYAB = "https://github.com/AlexeyAB/darknet/releases/download"
_V3, _V4 = f"{_ALEXEYAB}/darknet_yolo_v3_optimal", f"{_ALEXEYAB}/darknet_yolo_v4_pre"
_PJREDDIE = "https://pjreddie.com/media/files"
_PRN = "https://github.com/WongKinYiu/PartialResidualNetworks/raw/master/model"
_CSP = "https://github.com/WongKinYiu/CrossStagePartialNetworks/raw/master/weight"
_DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="


@dataclass(frozen=True, kw_only=True)
class Published:
    """One file. cfg: name of its cfg in its authors' repository. megabytes: about, 0: unknown. quality: as published."""

    name: str
    cfg: str
    url: str
    megabytes: float = 0
    quality: str = ""

    @property
    def file(self) -> str:
        """Name under which it is stored."""
        last = self.url.rsplit("/", 1)[-1]
        return f"{self.name}.weights" if "?" in last else last

    @property
    def expected(self) -> ExpectedFile:
        """Published sizes are rounded, and some call 1024 * 1024 bytes a megabyte; nobody publishes checksums."""
        return ExpectedFile(about=round(self.megabytes * 1e6) or None)


def _row(name: str, cfg: str, url: str, megabytes: float = 0, quality: str = "") -> Published:
    return Published(name=name, cfg=f"{cfg}.cfg", url=url, megabytes=megabytes, quality=quality)


PUBLISHED: tuple[Published, ...] = (
    _row("yolov4-p6", "yolov4-p6", f"{_V4}/yolov4-p6.weights", 487, "AP50 72.1 AP 54.0 at 1280"),
    _row("yolov4-p5", "yolov4-p5", f"{_V4}/yolov4-p5.weights", 271, "AP50 70.0 AP 51.6 at 896"),
    _row(
        "yolov4-csp-x-swish", "yolov4-csp-x-swish", f"{_V4}/yolov4-csp-x-swish.weights", 381, "AP50 69.9 AP 51.5 at 640"
    ),
    _row("yolov4-csp-swish", "yolov4-csp-swish", f"{_V4}/yolov4-csp-swish.weights", 202, "AP50 68.7 AP 50.0 at 640"),
    _row("yolov4x-mish", "yolov4x-mish", f"{_V4}/yolov4x-mish.weights", 381, "AP50 68.5 AP 50.1 at 640"),
    _row("yolov4-csp", "yolov4-csp", f"{_V4}/yolov4-csp.weights", 202, "AP50 67.4 AP 48.7 at 640"),
    _row("yolov4", "yolov4", f"{_V3}/yolov4.weights", 245, "AP50 65.7 AP 43.5 at 608"),
    _row("yolov4.conv.137", "yolov4", f"{_V3}/yolov4.conv.137", 162, "backbone"),
    _row("yolov4-tiny", "yolov4-tiny", f"{_V4}/yolov4-tiny.weights", 23.1, "AP50 40.2 at 416"),
    _row("yolov4-tiny.conv.29", "yolov4-tiny", f"{_V4}/yolov4-tiny.conv.29", 0, "backbone"),
    _row("yolov4-csp.conv.142", "yolov4-csp", f"{_V4}/yolov4-csp.conv.142", 0, "backbone"),
    _row("yolov4-p5.conv.232", "yolov4-p5", f"{_V4}/yolov4-p5.conv.232", 0, "backbone"),
    _row("yolov4-p6.conv.289", "yolov4-p6", f"{_V4}/yolov4-p6.conv.289", 0, "backbone"),
    _row("enet-coco", "enet-coco", f"{_DRIVE}1FlHeQjWEQVJt0ay1PVsiuuMzmtNyv36m", 18.3, "AP50 45.5 at 416"),
    _row(
        "csresnext50-panet-spp-original-optimal",
        "csresnext50-panet-spp-original-optimal",
        f"{_DRIVE}1CP1IGmo29TCVr6SxozRE16yqG67JXr2b",
        217,
        "AP50 65.4 AP 43.2 at 608",
    ),
    _row(
        "csresnext50-panet-spp",
        "csresnext50-panet-spp",
        f"{_DRIVE}1aNXdM8qVy11nqTcd2oaVB3mf7ckr258-",
        0,
        "AP50 60.0 AP 38.0 at 512",
    ),
    _row("yolov3-spp", "yolov3-spp", f"{_PJREDDIE}/yolov3-spp.weights", 0, "AP50 60.6 at 608"),
    _row("yolov3", "yolov3", f"{_PJREDDIE}/yolov3.weights", 0, "AP50 55.3 at 416"),
    _row("yolov3-tiny", "yolov3-tiny", f"{_PJREDDIE}/yolov3-tiny.weights", 0, "AP50 33.1 at 416"),
    _row("darknet53.conv.74", "yolov3", f"{_PJREDDIE}/darknet53.conv.74", 0, "backbone"),
    _row("yolov3-openimages", "yolov3-openimages", f"{_PJREDDIE}/yolov3-openimages.weights"),
    _row("yolov3-tiny-prn", "yolov3-tiny-prn", f"{_PRN}/yolov3-tiny-prn.weights", 18.8, "AP50 33.1 at 416"),
    _row("csmobilenet-v2", "csmobilenet-v2", f"{_CSP}/csmobilenet-v2_final.weights", 0, "top1 67.7"),
    _row("enetb0", "enetb0", f"{_CSP}/enetb0_final.weights", 0, "top1 71.3"),
    _row("resnet10", "resnet10", f"{_CSP}/resnet10_final.weights", 0, "top1 63.5"),
    _row("csdarknet53", "csdarknet53", f"{_DRIVE}1dZJIxngmFpQJvsa6y7XADfSxkXCjJTzp", 0, "top1 77.2"),
    _row("csresnet50", "csresnet50", f"{_DRIVE}1pNU6DctLlf3mnJI-opZL6kCx_hSNsEKj", 0, "top1 76.6"),
    _row("csresnext50", "csresnext50", f"{_DRIVE}1IxKu5lAYCo4UpzAl5pOBIDAvC843vjn1", 0, "top1 77.9"),
)


def find_published(name: str) -> Published:
    """The file of that name. Raises InputError, with names like it, if there is none."""
    for row in PUBLISHED:
        if row.name == name:
            return row
    near = difflib.get_close_matches(name, [row.name for row in PUBLISHED], 3)
    hint = f"; names like it: {', '.join(near)}" if near else "; without a name the list is printed"
    raise InputError(f"{name}: no weights of that name are known{hint}")


def listing() -> str:
    """The table as text."""
    lines = [f"{'name':<40} {'MB':>5}  {'published':<26} address"]
    for row in PUBLISHED:
        size = f"{row.megabytes:.0f}" if row.megabytes else "?"
        lines.append(f"{row.name:<40} {size:>5}  {row.quality:<26} {row.url}")
    return "\n".join(lines)

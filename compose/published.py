"""What the papers print for each model, and how close the project's cfg comes to it.

Sources: CSPNet (arXiv 1911.11929) and the README of WongKinYiu/CrossStagePartialNetworks, the results page of
WongKinYiu/PartialResidualNetworks, VoVNet (arXiv 1904.09730) and the README of stigma0617/VoVNet.pytorch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Reach = Literal["digits", "near", "apart"]
"""All printed digits; within NEAR; or further away. The last two need a note."""
NEAR = 0.003
Counted = Literal["weights", "stored"]
"""Parameters as CSPNet counts them (convolution weights), or everything a .weights file stores (the PRN repository)."""
REACHES: Mapping[str, Reach] = {"~": "near", "!": "apart"}
Status = Literal["exact", "contradicted", "open", "no count", "quoted"]
OPEN = "open: "
"""How the note of an open row begins."""
AUTHORS_CFG = "the authors' cfg "
"""How the note of a row begins whose count a published cfg gives that this project does not have: `NAME: BFLOPs`, and more."""


@dataclass(frozen=True)
class Printed:
    """A number as printed, and how close our count is held to it."""

    text: str
    reach: Reach = "digits"

    @property
    def value(self) -> float:
        return float(self.text)

    def agrees(self, value: float) -> bool:
        """Whether `value`, in the unit of the text, is as close as `reach` says."""
        if self.reach == "apart":
            return abs(value / self.value - 1) > NEAR
        return self.matches_digits(value) or (self.reach == "near" and abs(value / self.value - 1) <= NEAR)

    def matches_digits(self, value: float) -> bool:
        """Whether `value`, rounded to as many decimals, reads the same."""
        decimals = len(self.text.partition(".")[2])
        return f"{value:.{decimals}f}" == self.text


@dataclass(frozen=True)
class Row:
    """A printed row. `model` is the name of our cfg, empty when there is none; `side` is 0 when it is not printed."""

    label: str
    model: str
    side: int
    parameters: Printed | None
    bflops: Printed | None
    figures: Sequence[str]
    counted: Counted
    note: str

    @property
    def status(self) -> Status:
        """What became of the printed counts. tests/compose holds each to what it says."""
        printed = [number for number in (self.parameters, self.bflops) if number]
        if self.note.startswith(OPEN):
            return "open"
        if not printed:
            return "no count"
        if not self.model and not self.note.startswith(AUTHORS_CFG):
            return "quoted"
        return "exact" if all(number.reach == "digits" for number in printed) else "contradicted"


@dataclass(frozen=True)
class Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    remark: str = ""


def _table(title: str, columns: str, text: str, *, notes: Mapping[str, str] | None = None, remark: str = "") -> Table:
    """A table from lines of `label | cfg side | parameters [M] | BFLOPs | figures`, the figures in order of `columns`.

    A count that ends in ~ is held to be near, one that ends in ! to be apart; s marks stored values. `notes` are keyed by
    "label" or "label side".
    """
    rows = []
    for line in text.strip().splitlines():
        label, cfg, parameters, bflops, *rest = (cell.strip() for cell in line.split("|"))
        model, side = cfg.split() if " " in cfg else (cfg, "0")
        figures = rest[0].split() if rest else []
        assert len(figures) == len(columns.split()), f"{title}: {label} has {len(figures)} figures"
        rows.append(
            Row(
                label=label,
                model="" if model == "-" else model,
                side=int(side),
                parameters=_printed(parameters),
                bflops=_printed(bflops),
                figures=["–" if figure == "-" else figure for figure in figures],
                counted="stored" if "s" in parameters else "weights",
                note=(notes or {}).get(f"{label} {side}") or (notes or {}).get(label, ""),
            )
        )
    unknown = set(notes or {}) - {row.label for row in rows} - {f"{row.label} {row.side}" for row in rows}
    assert not unknown, f"{title}: notes on no row: {unknown}"
    return Table(title, [name.replace("_", " ") for name in columns.split()], rows, remark)


def _printed(text: str) -> Printed | None:
    return None if text == "-" else Printed(text.rstrip("s~!"), REACHES.get(text[-1], "digits"))


TABLE_1 = _table(
    "CSPNet Table 1: partial ratio and fusion, ImageNet",
    "top-1",
    """
    PeleeNet | peleenet 224 | - | 1.017 | 70.7
    SPeleeNet | speleenet 224 | - | 0.904 | 69.6
    PeleeNeXt | peleenext 224 | - | 0.837 | 68.9
    CSP (fusion first), 0.75 | csppeleenet-first-g75 224 | - | 0.649 | 68.4
    CSP (fusion first), 0.5 | csppeleenet-first-g50 224 | - | 0.755 | 69.2
    CSP (fusion first), 0.25 | csppeleenet-first-g25 224 | - | 0.861 | 70.0
    CSP (fusion last), 0.75 | csppeleenet-last-g75 224 | - | 0.716 | 69.2
    CSP (fusion last), 0.5 | csppeleenet-last-g50 224 | - | 0.804 | 70.6
    CSP (fusion last), 0.25 | csppeleenet-last-g25 224 | - | 0.902 | 70.8
    CSPPeleeNet, 0.75 | csppeleenet-g75 224 | - | 0.800 | 70.4
    CSPPeleeNet, 0.5 | csppeleenet 224 | - | 0.888 | 70.9
    CSPPeleeNet, 0.25 | csppeleenet-g25 224 | - | 0.986 | 71.5
    """,
    notes={
        "CSP (fusion first), 0.75": "open: the widths of the transitions are fitted, see below",
        "CSP (fusion first), 0.5": "open: as above; section 4.2 calls it slightly better than SPeleeNet, the table does not",
        "CSP (fusion first), 0.25": "open: as above",
        "CSP (fusion last), 0.5": "0.80450, at the edge of rounding",
    },
    remark="The larger gamma, the larger the share of channels that bypasses the dense block.",
)

TABLE_2 = _table(
    "CSPNet Table 2: heads on CSPPeleeNet (gamma 0.5), COCO",
    "fps AP AP50 AP75",
    """
    PRN | csppeleenet-prn 416 | - | 3.590 | 169 23.1 44.5 22.0
    PRN (swish) | csppeleenet-prn-swish 416 | - | 3.590 | 161 24.1 45.8 23.3
    PRN-3l | csppeleenet-prn3l 416 | - | 4.586 | 151 23.7 46.0 22.2
    CEM | csppeleenet-cem 416 | - | 4.049 | 148 23.8 45.4 22.6
    CEM (SAM) | csppeleenet-cem-sam 416 | - | 4.165 | 144 24.1 46.0 23.1
    GFM | csppeleenet-gfm 416 | - | 4.605 | 134 24.3 46.2 23.3
    EFM | csppeleenet-efm-plain 416 | - | 4.868 | 132 26.4 48.6 26.3
    EFM (GIoU) | csppeleenet-efm-giou 416 | - | 4.868 | 132 27.1 45.9 28.2
    EFM (SAM) | csppeleenet-efm 416 | - | 5.068 | 129 26.8 49.0 26.7
    EFM (SPP) | csppeleenet-efm-spp 416 | - | 4.863 | 128 26.2 48.5 25.7
    """,
    notes={
        "EFM (SAM)": "SAM on the three assembled maps adds the printed 0.200",
        "EFM (SPP)": "below EFM, which SPP alone cannot be; it is met when SPP replaces one 1x1 of 256 to 128 channels at /32",
    },
    remark="The input size is not printed; it follows from Table 4, and fps (GTX 1080 Ti) likewise.",
)

TABLE_3 = _table(
    "CSPNet Table 3: ImageNet",
    "top-1 top-5",
    """
    PeleeNet | peleenet 224 | 2.79 | 1.017 | 70.7 90.0
    PeleeNet-swish | peleenet-swish 224 | 2.79 | 1.017 | 71.5 90.7
    SEPeleeNet-swish | peleenet-swish-se 224 | 2.81 | 1.017 | 72.1 91.0
    CSPPeleeNet | csppeleenet 224 | 2.83 | 0.888 | 70.9 90.2
    CSPPeleeNet-swish | csppeleenet-swish 224 | 2.83 | 0.888 | 71.7 90.8
    SECSPPeleeNet-swish | csppeleenet-swish-se 224 | 2.85 | 0.888 | 72.4 91.0
    SparsePeleeNet | speleenet 224 | 2.39 | 0.904 | 69.6 89.3
    EfficientNet-B0* | efficientnet-b0 224 | 4.81 | 0.915 | 71.3 90.4
    EfficientNet-B0** | efficientnet-b0 224 | - | - | 70.0 88.9
    Darknet Reference | darknet-ref 256 | 7.31 | 0.96! | 61.1 83.0
    CSPDenseNet Reference | cspdensenet-ref 224 | 3.48 | 0.886! | 65.7 86.6
    CSPPeleeNet Reference | csppeleenet-ref 224 | 4.10 | 1.103 | 68.9 88.7
    ResNet-10 | resnet10 256 | 5.24 | 2.273 | 63.5 85.0
    CSPResNet-10 | cspresnet10 256 | 2.73 | 1.905 | 65.3 86.5
    ResNeXt-50 | resnext50 256 | 22.19 | 10.11 | 77.8 94.2
    CSPResNeXt-50 | csresnext50 256 | 20.50 | 7.93 | 77.9 94.0
    HarDNet-138s | hardnet138s 224 | 35.5 | 13.4 | 77.8 -
    DenseNet-264-32 | densenet264 224 | 27.21! | 11.03! | 77.8 93.9
    ResNet-152 | resnet152 224 | 60.2~ | 22.6 | 77.8 93.6
    DenseNet-201-Elastic | densenet201-elastic 224 | 19.48! | 8.77! | 77.9 94.0
    CSPDenseNet-201-Elastic | cspdensenet201-elastic 224 | 20.17 | 7.13 | 77.9 94.0
    Res2Net-50 (10 crop) | res2net50 224 | 25.29! | 8.4! | 78.0 93.8
    Res2NeXt-50 (10 crop) | res2next50 224 | 24.27! | 8.4! | 78.2 93.9
    CSPResNeXt-50 (10 crop) | csresnext50 256 | 20.50 | 7.9 | 78.2 94.3
    """,
    notes={
        "SEPeleeNet-swish": "position and width of SE are fitted",
        "SECSPPeleeNet-swish": "position and width of SE are fitted",
        "EfficientNet-B0*": "the Darknet implementation",
        "EfficientNet-B0**": "the official code with batch 256; no counts are printed",
        "Darknet Reference": "0.967 reads 0.97 when rounded; the paper cuts it off",
        "CSPDenseNet Reference": "its b form has 3.48 - 1.38 = 2.10 M weights less in a layer at 7x7, 0.206 BFLOPs: "
        "0.631 + 0.206 = 0.837, not 0.886; its detectors (2.01 and 2.89 at 320) fit 0.837 too",
        "DenseNet-264-32": "the 130 layers of the DenseNet paper have 27.42 M weights alone, without transitions and classifier",
        "ResNet-152": "with the scales and biases of batch norm: 60.04 + 0.15 = 60.19",
        "DenseNet-201-Elastic": "open: quoted from the Elastic paper; with batch norm before each convolution ours has 19.67 M",
        "Res2Net-50 (10 crop)": "open: BFLOPs are twice the Res2Net paper's 4.2 G multiply-adds, of one crop; with batch norm "
        "ours has 25.70 M",
        "Res2NeXt-50 (10 crop)": "open: as Res2Net-50; with batch norm ours has 24.67 M",
        "CSPResNeXt-50 (10 crop)": "per crop; top-1 ties with Res2NeXt-50",
    },
)

README = _table(
    "Rows that only the authors' README has: ImageNet",
    "top-1 top-5",
    """
    CSPDenseNetb Reference | cspdensenetb-ref 224 | 1.38 | 0.631 | 64.2 85.5
    CSPPeleeNetb Reference | csppeleenetb-ref 224 | 2.01 | 0.897 | 67.8 88.1
    ResNet-50 | resnet50 256 | 22.73 | 9.74 | 75.8 92.9
    CSPResNet-50 | csresnet50 256 | 21.57 | 8.97 | 76.6 93.3
    Darknet-53 | darknet53 256 | 41.57 | 18.57 | 77.2 93.8
    CSPDarknet-53 | csdarknet53 256 | 27.61 | 13.07 | 77.2 93.6
    MobileNet-v2 | mobilenet-v2 224 | 3.47 | 0.858 | 67.0 87.7
    CSPMobileNet-v2 | csmobilenet-v2 224 | 2.51 | 0.764 | 67.7 88.3
    PeleeNet, mish | - | - | - | 71.4 90.4
    CSPPeleeNet, mish | - | - | - | 71.2 90.3
    CSPResNeXt-50, mish | - | - | - | 78.9 94.5
    CSPResNeXt-50, swish | - | - | - | 64.5 86.0
    CSPResNeXt-50 + Elastic | - | - | 7.82 | 78.2 94.2
    CSPResNeXt-50-Elastic | - | - | 5.45 | 77.2 93.8
    CSPResNet-50-Elastic | - | - | 9.36 | 76.8 93.5
    CSPDarknet-53-Elastic | - | - | 7.74 | 76.1 93.3
    Res2NetLite-72 | - | - | 5.19~ | 74.7 92.1
    MixNet-M-GPU | - | - | 1.065 | 71.5 90.5
    """,
    notes={
        "CSPResNeXt-50 + Elastic": "open: no cfg or layer table was published",
        "CSPResNeXt-50-Elastic": f"{AUTHORS_CFG}csresnext50-elastic: 5.449",
        "CSPResNet-50-Elastic": f"{AUTHORS_CFG}csresnet50-elastic: 9.364",
        "CSPDarknet-53-Elastic": f"{AUTHORS_CFG}csdarknet53-elastic: 7.742",
        "Res2NetLite-72": f"{AUTHORS_CFG}res2netlite72: 5.185, which reads 5.19 when it is rounded twice",
        "MixNet-M-GPU": "open: no cfg or layer table was published",
    },
    remark="The first rows without a cfg differ from another one in `activation=`.",
)

TABLE_4 = _table(
    "CSPNet Table 4: COCO",
    "fps AP AP50 AP75 AP_S AP_M AP_L",
    """
    YOLOv3 | yolov3 608 | 62.3! | 140.7 | 30 33.0 57.9 34.4 18.3 25.4 41.9
    YOLOv3 (SPP) | yolov3-spp 608 | 62.9 | 141.5 | 30 36.2 60.6 38.2 20.6 37.4 46.1
    PANet (SPP), CSPResNeXt50 | csresnext50-panet-spp 608 | 56.9 | 100.6 | 35 38.4 60.6 41.6 22.1 41.8 47.6
    PANet (SPP), CSPResNeXt50 | csresnext50-panet-spp 512 | 56.9 | 71.3 | 44 38.0 60.0 40.8 19.7 41.4 49.9
    YOLOv3 | yolov3 416 | 62.3! | 65.9 | 46 31.0 55.3 32.3 15.2 33.2 42.8
    PANet (SPP), CSPResNeXt50 | csresnext50-panet-spp 416 | 56.9 | 47.1 | 53 36.6 58.1 39.0 16.2 39.5 50.9
    YOLOv3 | yolov3 320 | 62.3! | 39.0 | 56 28.2 51.5 29.7 11.9 30.6 43.4
    PANet (SPP), CSPResNeXt50 | csresnext50-panet-spp 320 | 56.9 | 27.9 | 58 33.4 54.0 35.1 11.8 35.3 50.9
    EFM (SAM), CSPPeleeNet | csppeleenet-efm 512 | 4.31 | 7.68 | 109 27.6 50.4 27.7 12.4 30.1 36.2
    EFM (SAM), CSPPeleeNet | csppeleenet-efm 416 | 4.31 | 5.07 | 129 26.8 49.0 26.7 9.8 28.2 38.8
    PRN, PeleeNet | peleenet-prn 416 | 3.16s | 4.04 | 145 23.3 45.0 22.0 6.7 24.8 35.1
    EFM (SAM), CSPPeleeNet Ref. | csppeleenet-ref-efm 320 | 5.67 | 3.43 | 205 23.5 44.6 22.7 7.1 23.6 36.1
    EFM (SAM), CSPDenseNet Ref. | cspdensenet-ref-efm 320 | 5.05 | 2.89 | 235 21.7 42.2 20.6 6.3 21.3 33.3
    PRN (3l), CSPPeleeNet Ref. | csppeleenet-ref-prn3l 320 | 4.79 | 3.15 | 267 19.4 40.0 17.0 5.8 18.8 31.1
    PRN, CSPPeleeNet Ref. | csppeleenet-ref-prn 320 | 4.59 | 2.56 | 306 18.8 38.5 16.6 5.0 18.9 31.4
    YOLOv3 (tiny) | yolov3-tiny 416 | 8.86s | 5.57 | 330 - 33.1 - - - -
    PRN, CSPDenseNet Ref. | cspdensenet-ref-prn 320 | 3.97 | 2.01 | 387 16.8 35.4 14.3 4.4 16.6 28.5
    PRN, Darknet Ref. | yolov3-tiny-prn 416 | 4.96s! | 3.47 | 400 - 33.1 - - - -
    PRN, CSPDenseNetb Ref. | cspdensenetb-ref-prn 320 | 1.87 | 1.59 | 400 15.3 34.2 12.0 3.6 16.1 23.4
    """,
    notes={
        "YOLOv3 608": "the next row less its SPP block is 62.9 - 1.05 = 61.9, as ours; AP_M is a misprint for 35.4",
        "YOLOv3": "62.9 - 1.05 = 61.9 as at 608; the public cfg stores 62.00 M values",
        "YOLOv3 (SPP)": "the 1x1 after its block has 2048 x 512 = 1.05 M weights, the paper prints 0.6 M more than for YOLOv3",
        "PRN, Darknet Ref.": "the public cfg has 4.940 M stored values; the PRN repository prints 4.95",
    },
    remark="COCO test-dev on a GTX 1080 Ti, batch 1 where possible. Rows in the order of the paper.",
)

TABLE_4_OTHERS = _table(
    "CSPNet Table 4: other detectors, for reference",
    "fps AP AP50 AP75 AP_S AP_M AP_L",
    """
    LRF, ResNet101 | - 512 | - | - | 31 37.3 58.5 39.7 19.7 42.8 50.1
    SSD, HarDNet85 | - 512 | - | - | 32 35.1 54.8 37.6 15.0 38.9 51.5
    M2Det, VGG16 | - 320 | - | - | 33 33.5 52.4 35.6 14.4 37.6 47.6
    PFPNet (R), VGG16 | - 320 | - | - | 33 31.8 52.9 33.6 12.0 35.5 46.1
    DAFS, VGG16 | - 512 | - | - | 35 33.8 52.9 36.9 14.6 37.0 47.7
    RFBNet, VGG16 | - 512 | - | - | 35 33.8 54.2 35.9 16.2 37.1 47.4
    SSD, HarDNet68 | - 512 | - | - | 38 31.7 51.0 33.8 12.5 35.1 47.9
    LRF, VGG16 | - 512 | - | - | 38 36.2 56.6 38.7 19.0 39.9 48.8
    PFPNet (S), VGG16 | - 300 | - | - | 39 29.6 49.6 31.1 10.6 32.0 44.9
    RefineDet, VGG16 | - 320 | - | - | 40 29.4 49.2 31.3 10.0 32.0 44.4
    SSD, VGG16 | - 300 | 34.3 | 70.4 | 44 25.7 43.9 26.2 6.9 27.7 42.6
    CenterNet, ResNet101 | - 512 | - | - | 45 34.6 53.0 36.9 - - -
    TTFNet, DarkNet53 | - 512 | - | - | 54 35.1 52.5 37.8 17.0 38.5 49.5
    Pelee, PeleeNet | - 304 | 5.98 | 2.58 | 106 22.4 38.3 22.9 - - -
    TTFNet, ResNet18 | - 512 | - | - | 112 28.1 43.8 30.2 11.8 29.5 41.5
    CenterNet, ResNet18 | - 512 | - | - | 129 28.1 44.9 29.6 - - -
    ThunderNet, SNet535 | - 320 | - | 2.60 | 214 28.0 46.2 29.5 - - -
    ThunderNet, SNet146 | - 320 | - | 0.95 | 248 23.6 40.2 24.5 - - -
    ThunderNet, SNet49 | - 320 | - | 0.52 | 267 19.1 33.7 19.6 - - -
    """,
    remark="TTFNet is measured on minival5k, the others on test-dev.",
)

README_LOSSES = _table(
    "Rows that only the authors' README has: CSPResNeXt50-PANet-SPP at 512 by loss, COCO test-dev",
    "AP AP50 AP75",
    """
    MSE | csresnext50-panet-spp 512 | - | - | 38.0 60.0 40.8
    GIoU | - 512 | - | - | 39.4 59.4 42.5
    DIoU | - 512 | - | - | 39.1 58.8 42.1
    CIoU | - 512 | - | - | 39.6 59.2 42.6
    original-optimal | csresnext50-panet-spp-original-optimal 512 | - | - | 42.4 64.4 45.9
    """,
    remark="Set `iou_loss=` in [yolo] for the others. By NMS threshold .45, .50, .55, .60, .65, .70 the authors report AP 38.0, "
    "38.2, 38.4, 38.5, 38.6, 38.5 and AP50 60.0, 60.2, 60.1, 60.0, 59.7, 59.2.",
)

TABLE_5 = _table(
    "CSPNet Table 5: frames per second on three devices",
    "GTX_1080_Ti i9-9900K Jetson_TX2 AP50",
    """
    SNet146-ThunderNet | - 320 | - | - | 248 32 - 40.2
    SNet49-ThunderNet | - 320 | - | - | 267 47 - 33.7
    YOLOv3-tiny | yolov3-tiny 416 | - | - | 330 54 37 33.1
    YOLOv3-tiny-PRN | yolov3-tiny-prn 416 | - | - | 400 71 49 33.1
    CSPPeleeNet Ref.-EFM (SAM) | csppeleenet-ref-efm 320 | - | - | 205 - 41 44.6
    CSPDenseNet Ref.-EFM (SAM) | cspdensenet-ref-efm 320 | - | - | 235 - 49 42.2
    CSPPeleeNet Ref.-PRN (3l) | csppeleenet-ref-prn3l 320 | - | - | 267 52 38 40.0
    CSPPeleeNet Ref.-PRN | csppeleenet-ref-prn 320 | - | - | 306 75 52 38.5
    CSPDenseNet Ref.-PRN | cspdensenet-ref-prn 320 | - | - | 387 95 64 35.4
    CSPDenseNetb Ref.-PRN | cspdensenetb-ref-prn 320 | - | - | 400 102 73 34.2
    """,
    notes={
        "SNet146-ThunderNet": "its processor speed is from a Xeon E5-2682v4, as the authors' README says",
        "SNet49-ThunderNet": "as above",
    },
    remark="The i9-9900K ran OpenCV's DNN module; no compression, no quantization.",
)

PRN = _table(
    "PRN repository: heads on PeleeNet, COCO test-dev",
    "AP AP50 AP75",
    """
    Pelee-YOLOv3-tiny | peleenet-yolov3-tiny 416 | 3.91s | 5.06 | 23.6 45.3 22.5
    Pelee-YOLOv3-tiny | peleenet-yolov3-tiny 320 | 3.91s | 2.99 | 21.2 41.4 19.9
    Pelee-FPN | peleenet-fpn 416 | 3.75s | 4.84 | 23.9 45.7 22.7
    Pelee-FPN | peleenet-fpn 320 | 3.75s | 2.86 | 21.3 41.4 20.0
    Pelee-PRN | peleenet-prn 416 | 3.16s | 4.04 | 23.3 45.0 22.0
    Pelee-PRN | peleenet-prn 320 | 3.16s | 2.39 | 20.9 40.9 19.4
    Pelee-PRN-3l | peleenet-prn3l 416 | 3.36s | 5.03 | 24.1 46.3 22.9
    Pelee-PRN-3l | peleenet-prn3l 320 | 3.36s | 3.98! | 21.2 42.5 19.8
    Pelee-PAN | peleenet-pan 416 | - | 4.99 | 24.1 45.9 23.2
    Pelee-PAN | peleenet-pan 320 | - | 2.95 | 21.4 41.6 20.2
    SparsePelee-PRN | speleenet-prn 416 | - | 3.65 | 22.7 44.1 21.3
    SparsePelee-PRN | speleenet-prn 320 | - | 2.16 | 20.3 40.0 18.7
    EfficientNet-B0-PRN | efficientnet-b0-prn 416 | - | 3.730 | - 45.5 -
    EfficientNet-B0-PRN | efficientnet-b0-prn 320 | - | 2.208 | - 41.0 -
    Pelee-PAN2 | - 416 | - | 4.33 | 23.6 45.4 22.5
    Pelee-PAN2 | - 320 | - | 2.56 | 21.4 41.6 20.2
    PartialPelee-PRN | partialpeleenet-prn 416 | - | 3.67 | 22.7 44.0 21.4
    PartialPelee-PRN | partialpeleenet-prn 320 | - | 2.17 | 20.5 40.2 19.1
    Pelee2-CEM | - 416 | - | 4.81 | 23.7 45.2 22.8
    Pelee2-CEM-SAM | - 416 | - | 4.90 | 24.2 46.1 23.3
    """,
    notes={
        "Pelee-PRN-3l 320": "a misprint: 5.03 at 416 is 2.98 at 320",
        "Pelee-PAN 416": "concatenation with the path down before the 3x3 at /32; other forms of this cost are possible",
        "Pelee-PAN2 416": "open: 13 units (as in Figure 7) above PRN; several forms cost that, none stands out",
        "Pelee-PAN2 320": "open: as above",
        "Pelee2-CEM": "open: the backbone was never described",
        "Pelee2-CEM-SAM": "open: as above",
    },
)

VOVNET_IMAGENET = _table(
    "VoVNet: ImageNet (authors' README)",
    "top-1_error top-5_error ms",
    """
    VoVNet-27-slim | vovnet27-slim 224 | - | - | - - -
    VoVNet-39 | vovnet39 224 | - | - | 23.23 6.57 10
    VoVNet-57 | vovnet57 224 | - | - | 22.27 6.28 13
    VoVNet-75 | vovnet75 224 | - | - | - - -
    VoVNet-93 | vovnet93 224 | - | - | - - -
    VoVNet-27-slim, Caffe form | vovnet27-slim-caffe 224 | - | - | - - -
    VoVNet-39, Caffe form | vovnet39-caffe 224 | - | - | - - -
    VoVNet-57, Caffe form | vovnet57-caffe 224 | - | - | - - -
    VoVNet-27-slim, 1x1 bottlenecks | vovnet27-slim-bottleneck 224 | - | - | - - -
    ResNet-50 | resnet50 224 | - | - | 23.85 7.13 12
    ResNet-101 | resnet101 224 | - | - | 22.63 6.44 20
    DenseNet-161 | densenet161 224 | - | - | 22.35 6.20 27
    DenseNet-201 | densenet201 224 | - | - | 22.80 6.43 39
    """,
    notes={
        "VoVNet-39": "the authors' weights fit this form",
        "VoVNet-57": "the authors' weights fit this form",
        "VoVNet-75": "modules 1, 2, 6, 3; published with the detectors",
        "VoVNet-93": "modules 1, 3, 8, 3; published with the detectors",
        "VoVNet-39, Caffe form": "third stem convolution at stride 1, then pooling; no additions",
        "VoVNet-27-slim, 1x1 bottlenecks": "Table 3 prints 1.0 G multiply-adds and 1.1 M parameters less at 300; this "
        "change gives 0.82 G and 0.78 M",
        "ResNet-50": "ours is Darknet's, without projections",
        "ResNet-101": "ours is Darknet's, without projections",
        "DenseNet-201": "ours is Darknet's, with 512 channels before the last block",
    },
    remark="Milliseconds on a TITAN X (Pascal). BFLOPs count two operations for each of the paper's multiply-adds.",
)

VOVNET_DETECTORS = _table(
    "VoVNet Tables 2 and 4: detectors, for reference",
    "multiply-adds_[G] memory_[MB] J/image GFLOP/s fps AP_or_mAP",
    """
    SSD300, MobileNet | - 300 | 5.7 | - | 1.1 766 2.3 42 37 68.0
    Pelee304, PeleeNet | - 304 | 5.4 | - | 1.2 1104 2.4 43 35 70.9
    DSOD300, DenseNet-67 | - 300 | 5.9 | - | 5.3 1294 3.7 189 35 73.6
    DSOD300, VoVNet-27-slim | - 300 | 5.9 | - | 5.6 825 0.9 400 71 74.8
    RefineDet320, ResNet-50 | - 320 | 63.46 | - | 25.43 2229 5.3 591.3 23.2 30.3
    RefineDet320, DenseNet-201 | - 320 | 56.13 | - | 24.65 3498 9.9 296.9 12.0 32.5
    RefineDet320, VoVNet-39 | - 320 | 56.28 | - | 32.6 2199 4.8 815.0 25.0 33.5
    RefineDet320, ResNet-101 | - 320 | 82.45 | - | 33.02 3013 7.5 579.2 17.5 32.0
    RefineDet320, DenseNet-161 | - 320 | 66.76 | - | 32.74 3628 10.0 419.7 12.8 33.5
    RefineDet320, VoVNet-57 | - 320 | 70.32 | - | 36.45 2511 5.9 775.5 21.2 33.9
    """,
    notes={
        "DSOD300, VoVNet-27-slim": "the text says 74.87; its gains of 3.97 and 6.87 use that",
        "RefineDet320, ResNet-50": "VoVNet-39 gains 3.2, the text says 3.3",
        "RefineDet320, DenseNet-201": "the text's 1.6 to 4.1 times less energy: 2.06 here, 1.69 for DenseNet-161, 4.1 on DSOD",
        "RefineDet320, VoVNet-57": "14.04 M parameters more than VoVNet-39, as ours; 1.66 times DenseNet-161's fps, not twice",
    },
    remark="mAP on VOC2007 for the first four, AP on COCO test-dev for RefineDet. DSOD and RefineDet are not Darknet heads.",
)

VOVNET_MASK_RCNN = _table(
    "VoVNet Table 5: Mask R-CNN from scratch, COCO val, for reference",
    "box_AP AP50 AP75 mask_AP AP50 AP75 ms",
    """
    ResNet-50-GN | - | - | - | 39.5 59.8 43.6 35.2 56.9 37.6 157
    ResNet-101-GN | - | - | - | 41.0 61.1 44.9 36.4 58.2 38.7 185
    VoVNet-39-GN | - | - | - | 41.7 62.2 45.8 36.8 59.0 39.5 152
    VoVNet-57-GN | - | - | - | 41.9 62.1 46.0 37.0 59.3 39.7 159
    """,
    notes={"VoVNet-39-GN": "0.7 box AP above ResNet-101; the text says 0.9, which VoVNet-57 gains"},
    remark="The header of the third column is printed as AP70.",
)

VOVNET_COCO = _table(
    "VoVNet Tables 6 and 7: COCO test-dev, for reference",
    "AP AP50 AP75 AP_S AP_M AP_L fps",
    """
    Faster R-CNN G-RMI, Inception-ResNet-v2 | - | - | - | 34.7 55.5 36.7 13.5 38.1 50.8 -
    Faster R-CNN+++, ResNet-101-C4 | - | - | - | 34.9 55.7 37.4 15.6 38.7 50.9 0.3
    Faster R-CNN FPN, ResNet-101 | - | - | - | 36.2 59.1 39 18.2 39 48.2 -
    Faster R-CNN RoIAlign, ResNet-101-FPN | - | - | - | 37.3 59.6 40.3 19.8 40.2 48.8 9.2
    Mask R-CNN, ResNeXt-101-FPN | - | - | - | 39.8 62.3 43.4 22.1 43.2 51.2 5.3
    DSOD300, DS/64-192-48-1 | - 300 | - | - | 29.3 47.3 30.6 9.4 31.5 47 28.6
    SSD320, ResNet-50 | - 320 | - | - | 24.9 42.6 25.8 6.9 26.7 41.3 29.4
    SSD321, ResNet-101 | - 321 | - | - | 28 46.1 29.2 6.2 28.3 49.3 22.7
    RefineDet320, VGG-16 | - 320 | - | - | 29.4 49.2 31.3 10.0 32.0 44.4 38.7
    RefineDet320, ResNet-50 | - 320 | - | - | 30.3 49.8 32.3 10.2 32.8 46.9 23.2
    RefineDet320, ResNet-101 | - 320 | - | - | 32 51.4 34.2 10.5 34.7 50.4 17.5
    RefineDet320, DenseNet-201 | - 320 | - | - | 32.5 52.2 34.7 11.3 35.4 50.1 12.0
    RefineDet320, DenseNet-161 | - 320 | - | - | 33.5 53.5 36.0 11.6 36.6 51.4 12.8
    RefineDet320, VoVNet-39 | - 320 | - | - | 33.5 53.8 35.8 12.8 36.8 49.2 25.0
    RefineDet320, VoVNet-57 | - 320 | - | - | 33.9 54.1 36.3 12.8 37.1 50.3 21.2
    YOLOv3, DarkNet-53 | - 608 | - | - | 33 57.9 34.4 18.3 35.4 41.9 19.6
    SSD513, ResNet-101 | - 513 | - | - | 31.2 50.4 33.3 10.2 34.5 49.8 13.9
    DSSD513, ResNet-101 | - 513 | - | - | 33.2 53.3 35.2 12 35.4 51.1 -
    RetinaNet500, Res-101-FPN | - 500 | - | - | 34.4 53.1 36.8 14.7 38.5 49.1 11.1
    RetinaNet800, Res-101-FPN | - 800 | - | - | 37.8 57.5 40.8 20.2 41.1 49.2 5.0
    RefineDet512, ResNet-50, batch 20 | - 512 | - | - | 35.2 - - - - - 15.6
    RefineDet512, ResNet-101 | - 512 | - | - | 36.4 57.5 39.5 16.6 39.9 51.4 12.7
    RefineDet512+, ResNet-101, multi-scale | - 512 | - | - | 41.8 62.9 45.7 25.6 45.1 54.1 -
    CornerNet, Hourglass | - 512 | - | - | 40.6 56.4 43.2 19.1 42.8 54.3 4.4
    CornerNet, Hourglass, multi-scale | - 512 | - | - | 42.2 57.8 45.2 20.7 44.8 56.6 -
    RefineDet512, VoVNet-39, batch 20 | - 512 | - | - | 37.5 - - - - - 16.6
    RefineDet512, VoVNet-57, batch 20 | - 512 | - | - | 38.1 - - - - - 14.9
    RefineDet512, VoVNet-39 | - 512 | - | - | 38.5 60.4 42.0 20.0 41.4 51.7 16.6
    RefineDet512, VoVNet-57 | - 512 | - | - | 39.2 60.7 42.6 20.2 42.4 52.8 14.9
    RefineDet512, VoVNet-39, multi-scale | - 512 | - | - | 43.0 64.5 46.9 26.8 46.0 54.8 -
    RefineDet512, VoVNet-57, multi-scale | - 512 | - | - | 43.6 64.9 47.7 27.2 46.9 55.6 -
    """,
    notes={
        "RefineDet512, ResNet-101": "12.3 fps in Table 7, with batch 20",
        "RefineDet512, VoVNet-39": "the batch 32 of Table 7",
        "RefineDet512, VoVNet-57": "the batch 32 of Table 7",
        "CornerNet, Hourglass": "14.9 / 4.4 is 3.4; the text says three times faster",
    },
)

TABLES = (
    TABLE_1, TABLE_2, TABLE_3, README, TABLE_4, TABLE_4_OTHERS, README_LOSSES, TABLE_5, PRN,
    VOVNET_IMAGENET, VOVNET_DETECTORS, VOVNET_MASK_RCNN, VOVNET_COCO,
)  # fmt: skip

UNIT = 2 * 32 * 32 * 104 * 104 / 1e9
"""BFLOPs of a 1x1 convolution of 32 to 32 channels at 104x104, the unit in which the bars of Figure 7 are round."""
SMALL = 0.0004 / UNIT
"""A bar of Figure 7 below this height cannot be seen."""
READING_ERROR = 0.0011
"""BFLOPs by which measured bars of Figure 7 miss the layers of PeleeNet-PRN, which are known."""
LARGEST = {"peleenet-yolov3-tiny": 45, "peleenet-prn": 16, "csppeleenet-efm-plain": 9}
"""The highest bar of each network in Figure 7, in UNITs."""
BARS: Mapping[int, float] = {
    0: 3.375, 2: 1, 3: 2, 4: 4.5, 5: 2, 6: 2, 17: 9, 19: 4, 20: 2, 21: 2, 42: 9, 44: 4, 45: 2, 46: 2, 87: 9, 89: 4, 90: 2,
    91: 2, 112: 2.25, 113: 6.25, 114: 2.5, 115: 9, 116: 0.5, 117: 0, 118: 0, 119: 2, 120: 9, 121: 0.5, 122: 0.03, 123: 2.25,
    124: 0.5, 125: 2.25, 126: 0.086, 127: 0, 128: 0.03, 129: 1, 130: 9, 131: 0.5, 132: 0.03, 133: 2.25, 134: 0, 135: 2,
    136: 9, 137: 3.98, 138: 0, 139: 4.5, 140: 0, 141: 0, 142: 2, 143: 9, 144: 1.99, 145: 0, 146: 4.5, 147: 0.5, 148: 2.25,
    149: 0.5, 150: 0,
}  # fmt: skip
"""CSPPeleeNet-EFM in Figure 7: measured bars in UNITs by the figure's layer number, 0 for one that cannot be seen."""

_CSP, _PRN_REPOSITORY, _DARKNET = "CrossStagePartialNetworks", "PartialResidualNetworks", "darknet"
PUBLISHED_CFGS: Mapping[str, tuple[str, str]] = {
    "darknet-ref": (_CSP, "darknet"),
    "efficientnet-b0": (_CSP, "enetb0"),
    "mobilenet-v2": (_CSP, "mobilenet-v2"),
    "csmobilenet-v2": (_CSP, "csmobilenet-v2"),
    "resnet10": (_CSP, "resnet10"),
    "resnet50": (_CSP, "resnet50"),
    "csresnet50": (_CSP, "csresnet50"),
    "resnet101": (_DARKNET, "resnet101"),
    "resnext50": (_CSP, "resnext50"),
    "csresnext50": (_CSP, "csresnext50"),
    "darknet53": (_CSP, "darknet53"),
    "csdarknet53": (_CSP, "csdarknet53"),
    "densenet201": (_CSP, "densenet201-leaky"),
    "yolov3": (_DARKNET, "yolov3"),
    "yolov3-spp": (_DARKNET, "yolov3-spp"),
    "yolov3-tiny": (_DARKNET, "yolov3-tiny"),
    "yolov3-tiny-prn": (_PRN_REPOSITORY, "yolov3-tiny-prn"),
    "efficientnet-b0-prn": (_DARKNET, "enet-coco"),
    "csresnext50-panet-spp": (_CSP, "csresnext50-panet-spp"),
    "csresnext50-panet-spp-original-optimal": (_CSP, "csresnext50-panet-spp-original-optimal"),
}
"""Our cfgs that have a twin: the repository (of WongKinYiu, darknet of AlexeyAB) and its cfg. Same function, same weights."""

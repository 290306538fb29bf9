"""What the papers print for each model, and how close the project's cfg comes to it.

Sources: CSPNet (arXiv 1911.11929) Tables 1 to 4 and section 4, the README of WongKinYiu/CrossStagePartialNetworks, the
results page of WongKinYiu/PartialResidualNetworks, VoVNet (arXiv 1904.09730) and the README of stigma0617/VoVNet.pytorch.
A figure that could not be read from one of them is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Reach = Literal["digits", "near", "apart"]
"""All printed digits; within NEAR; or further away, which a note explains."""
NEAR = 0.003
Counted = Literal["weights", "stored"]
"""Parameters as CSPNet counts them (convolution weights), or everything a .weights file stores (the PRN repository)."""


@dataclass(frozen=True)
class Printed:
    """A number as printed, and how close our count is held to it."""

    text: str
    reach: Reach = "digits"

    @property
    def value(self) -> float:
        return float(self.text)

    def agrees(self, value: float) -> bool:
        """Whether `value`, in the unit of the text, keeps the promise of `reach`."""
        if self.reach == "apart":
            return abs(value / self.value - 1) > NEAR
        return self.matches_digits(value) or (self.reach == "near" and abs(value / self.value - 1) <= NEAR)

    def matches_digits(self, value: float) -> bool:
        """Whether `value`, rounded to as many decimals, reads the same."""
        decimals = len(self.text.partition(".")[2])
        return f"{value:.{decimals}f}" == self.text


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a published table: the model's cfg, input side, parameters in millions, BFLOPs, accuracy as printed."""

    label: str
    model: str
    side: int
    parameters: Printed | None = None
    bflops: Printed | None = None
    accuracy: str = ""
    fps: str = ""
    counted: Counted = "weights"
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    title: str
    accuracy: str
    rows: tuple[Row, ...]
    remark: str = ""


def _row(
    label: str,
    model: str,
    side: int,
    parameters: str | Printed | None,
    bflops: str | Printed | None,
    accuracy: str = "",
    note: str = "",
    *,
    fps: str = "",
    counted: Counted = "weights",
) -> Row:
    return Row(
        label=label,
        model=model,
        side=side,
        parameters=Printed(parameters) if isinstance(parameters, str) else parameters,
        bflops=Printed(bflops) if isinstance(bflops, str) else bflops,
        accuracy=accuracy,
        fps=fps,
        counted=counted,
        note=note,
    )


def _near(text: str) -> Printed:
    return Printed(text, "near")


def _apart(text: str) -> Printed:
    return Printed(text, "apart")


TABLE_1 = Table(
    title="CSPNet Table 1: partial ratio and fusion, ImageNet",
    accuracy="top-1 / top-5",
    rows=(
        _row("PeleeNet", "peleenet", 224, "2.79", "1.017", "70.7 / 90.0"),
        _row("SPeleeNet", "speleenet", 224, "2.39", "0.904", "69.6 / 89.3"),
        _row("PeleeNeXt", "peleenext", 224, None, "0.837"),
        _row("CSP (fusion first), 0.75", "csppeleenet-first-g75", 224, None, "0.649"),
        _row("CSP (fusion first), 0.5", "csppeleenet-first-g50", 224, None, "0.755"),
        _row("CSP (fusion first), 0.25", "csppeleenet-first-g25", 224, None, "0.861"),
        _row("CSP (fusion last), 0.75", "csppeleenet-last-g75", 224, None, "0.716"),
        _row("CSP (fusion last), 0.5", "csppeleenet-last-g50", 224, None, "0.804", "70.6 / –"),
        _row("CSP (fusion last), 0.25", "csppeleenet-last-g25", 224, None, "0.902", "70.8 / –"),
        _row("CSPPeleeNet, 0.75", "csppeleenet-g75", 224, None, "0.800"),
        _row("CSPPeleeNet, 0.5", "csppeleenet", 224, "2.83", "0.888", "70.9 / 90.2"),
        _row("CSPPeleeNet, 0.25", "csppeleenet-g25", 224, None, "0.986", "71.5 / –"),
    ),
    remark="Where only a top-1 stands, it follows from the differences that the paper's text states.",
)

TABLE_2 = Table(
    title="CSPNet Table 2: feature fusion on CSPPeleeNet, COCO",
    accuracy="AP / AP50 / AP75",
    rows=(
        _row(
            "PRN",
            "csppeleenet-prn",
            416,
            None,
            _near("3.590"),
            "23.1 / 44.5 / 22.0",
            "PRN itself is public; the rest is the backbone's last map, of 704 channels in ours",
        ),
        _row("PRN, swish", "csppeleenet-prn-swish", 416, None, _near("3.590"), "24.1 / 45.8 / 23.3", "as above"),
        _row(
            "PRN (31)",
            "csppeleenet-prn31",
            416,
            None,
            _near("4.586"),
            "",
            "as above; the third scale adds 0.996 as printed",
        ),
        _row(
            "CEM", "csppeleenet-cem", 416, None, _near("4.049"), "", "no free width meets it with SAM's 0.116 as well"
        ),
        _row("CEM (SAM)", "csppeleenet-cem-sam", 416, None, _near("4.165"), "", "SAM adds 0.116 as printed"),
        _row("GFM", "csppeleenet-gfm", 416, None, "4.605"),
        _row("EFM", "csppeleenet-efm-plain", 416, None, "4.868", "", "AP 2.1 and AP50 2.4 above GFM"),
        _row("EFM (GIoU)", "csppeleenet-efm-giou", 416, None, "4.868", "", "AP 0.7 above, AP50 2.7 below EFM"),
        _row("EFM (SAM)", "csppeleenet-efm", 416, None, "5.068", "", "the paper's final model"),
        _row(
            "EFM (SPP)",
            "csppeleenet-efm-spp",
            416,
            None,
            _near("4.863"),
            "",
            "printed below EFM without SPP, which adding layers cannot do; perhaps 4.883",
        ),
    ),
    remark="The table itself could not be read as text; AP is given where the authors' README states it.",
)

TABLE_3 = Table(
    title="CSPNet Table 3: ImageNet",
    accuracy="top-1 / top-5",
    rows=(
        _row("PeleeNet", "peleenet", 224, "2.79", "1.017", "70.7 / 90.0"),
        _row("PeleeNet-swish", "peleenet-swish", 224, "2.79", "1.017", "71.5 / 90.7"),
        _row(
            "PeleeNet-swish-SE",
            "peleenet-swish-se",
            224,
            "2.81",
            "1.017",
            "72.1 / 91.0",
            "place and width of SE are ours",
        ),
        _row("CSPPeleeNet", "csppeleenet", 224, "2.83", "0.888", "70.9 / 90.2"),
        _row("CSPPeleeNet-swish", "csppeleenet-swish", 224, "2.83", "0.888", "71.7 / 90.8"),
        _row(
            "CSPPeleeNet-swish-SE",
            "csppeleenet-swish-se",
            224,
            "2.85",
            "0.888",
            "72.4 / 91.0",
            "place and width of SE are ours",
        ),
        _row("SparsePeleeNet", "speleenet", 224, "2.39", "0.904", "69.6 / 89.3"),
        _row("EfficientNet-B0*", "efficientnet-b0", 224, "4.81", "0.915", "71.3 / 90.4"),
        _row(
            "Darknet Ref.",
            "darknet-ref",
            256,
            "7.31",
            _apart("0.96"),
            "61.1 / 83.0",
            "0.967; the paper cuts off instead of rounding",
        ),
        _row(
            "CSPDenseNet Ref.",
            "cspdensenet-ref",
            224,
            "3.48",
            _apart("0.886"),
            "65.7 / 86.6",
            "0.886 contradicts the printed detectors on it (2.01 and 2.89 at 320) and the b form; all fit 0.836",
        ),
        _row("CSPPeleeNet Ref.", "csppeleenet-ref", 224, "4.10", "1.103", "68.9 / 88.7"),
        _row("CSPDenseNetb Ref.", "cspdensenetb-ref", 224, "1.38", "0.631", "64.2 / 85.5"),
        _row("CSPPeleeNetb Ref.", "csppeleenetb-ref", 224, "2.01", "0.897", "67.8 / 88.1"),
        _row("ResNet-10", "resnet10", 256, "5.24", "2.273", "63.5 / 85.0"),
        _row("CSPResNet-10", "cspresnet10", 256, "2.73", "1.905", "65.3 / 86.5"),
        _row("ResNeXt-50", "resnext50", 256, "22.19", "10.11", "77.8 / 94.2"),
        _row("CSPResNeXt-50", "csresnext50", 256, "20.50", "7.93", "77.9 / 94.0"),
        _row("HarDNet-138s", "hardnet138s", 224, "35.5", "13.4", "77.8 / –"),
        _row(
            "DenseNet-264-32",
            "densenet264",
            224,
            _apart("27.21"),
            _apart("11.03"),
            "77.8 / 93.9",
            "blocks of 6, 12, 64, 48 layers, as the DenseNet paper prints them, cannot have so few parameters",
        ),
        _row(
            "ResNet-152",
            "resnet152",
            224,
            _near("60.2"),
            "22.6",
            "77.8 / 93.6",
            "the printed figure counts scales and biases of batch norm too",
        ),
        _row(
            "DenseNet-201-Elastic",
            "densenet201-elastic",
            224,
            _apart("19.48"),
            _apart("8.77"),
            "77.9 / 94.0",
            "the printed figures are the Elastic paper's own count of a network with batch norm before each convolution",
        ),
        _row("CSPDenseNet-201-Elastic", "cspdensenet201-elastic", 224, "20.17", "7.13", "77.9 / 94.0"),
    ),
)

TABLE_4 = Table(
    title="CSPNet Table 4: COCO",
    accuracy="AP / AP50 / AP75",
    rows=(
        _row(
            "YOLOv3",
            "yolov3",
            416,
            _apart("62.3"),
            "65.9",
            "",
            "the public cfg has 62.00 M stored values, 61.90 M weights",
        ),
        _row("YOLOv3", "yolov3", 608, _apart("62.3"), "140.7", "", "as above"),
        _row("YOLOv3-SPP", "yolov3-spp", 608, "62.9", "141.5", "– / 60.6 / –"),
        _row("PANet (SPP) + CSPResNeXt50", "csresnext50-panet-spp", 320, "56.9", "27.9"),
        _row("PANet (SPP) + CSPResNeXt50", "csresnext50-panet-spp", 416, "56.9", "47.1"),
        _row(
            "PANet (SPP) + CSPResNeXt50", "csresnext50-panet-spp", 512, "56.9", "71.3", "38.0 / 60.0 / 40.8", fps="44"
        ),
        _row(
            "PANet (SPP) + CSPResNeXt50", "csresnext50-panet-spp", 608, "56.9", "100.6", "38.4 / 60.6 / 41.6", fps="35"
        ),
        _row(
            "same, optimal recipe",
            "csresnext50-panet-spp-original-optimal",
            512,
            "56.9",
            "71.3",
            "42.4 / 64.4 / 45.9",
            "published after the paper",
            fps="44",
        ),
        _row("YOLOv3-tiny", "yolov3-tiny", 416, "8.86", "5.57", "– / 33.1 / –", counted="stored"),
        _row(
            "YOLOv3-tiny-PRN",
            "yolov3-tiny-prn",
            416,
            _apart("4.96"),
            "3.47",
            "– / 33.1 / –",
            "the public cfg has 4.940 M stored values",
            counted="stored",
        ),
        _row("PRN + PeleeNet", "peleenet-prn", 416, "3.16", "4.04", "– / 45.0 / –", counted="stored"),
        _row("PRN (31) + PeleeNet", "peleenet-prn31", 416, "3.36", "5.03", counted="stored"),
        _row("EFM (SAM) + CSPPeleeNet", "csppeleenet-efm", 416, "4.31", "5.07"),
        _row("EFM (SAM) + CSPPeleeNet", "csppeleenet-efm", 512, "4.31", "7.68"),
        _row("EFM (SAM) + CSPPeleeNet Ref.", "csppeleenet-ref-efm", 320, "5.67", "3.43", "– / 44.6 / –"),
        _row("PRN (31) + CSPPeleeNet Ref.", "csppeleenet-ref-prn31", 320, "4.79", "3.15", "19.4 / 40.0 / 17.0"),
        _row("PRN + CSPPeleeNet Ref.", "csppeleenet-ref-prn", 320, "4.59", "2.56"),
        _row("EFM (SAM) + CSPDenseNet Ref.", "cspdensenet-ref-efm", 320, "5.05", "2.89"),
        _row("PRN + CSPDenseNet Ref.", "cspdensenet-ref-prn", 320, "3.97", "2.01"),
        _row("PRN + CSPDenseNetb Ref.", "cspdensenetb-ref-prn", 320, "1.87", "1.59", "15.3 / 34.2 / 12.0", fps="400"),
    ),
    remark="The table itself could not be read as text; accuracy and frames per second (GTX 1080 Ti) are given where the "
    "authors' README or the paper's text states them. AP50 44.6 follows from the text (11.5 above YOLOv3-tiny).",
)

VOVNET = Table(
    title="VoVNet: ImageNet",
    accuracy="top-1 / top-5 error",
    rows=(
        _row("VoVNet-27-slim", "vovnet27-slim", 224, None, None),
        _row("VoVNet-39", "vovnet39", 224, None, None, "23.23 / 6.57", fps="10 ms"),
        _row("VoVNet-57", "vovnet57", 224, None, None, "22.27 / 6.28", fps="13 ms"),
    ),
    remark="Accuracy and speed (TITAN X Pascal) from the authors' README; the paper's tables could not be read as text.",
)

TABLES = (TABLE_1, TABLE_2, TABLE_3, TABLE_4, VOVNET)

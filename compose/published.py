"""The numbers printed in the papers for each model (papers.txt), and how close the project's cfgs come to them.

Sources: CSPNet (arXiv 1911.11929) and the README of WongKinYiu/CrossStagePartialNetworks, the results page of
WongKinYiu/PartialResidualNetworks, VoVNet (arXiv 1904.09730) and the README of stigma0617/VoVNet.pytorch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Reach = Literal["digits", "near", "apart"]
"""Equal in all printed digits, within NEAR, or further apart. The last two need a note."""
NEAR = 0.003
Counted = Literal["weights", "stored"]
"""Parameters as CSPNet counts them (convolution weights), or all floats of a .weights file (the PRN repository)."""
REACHES: Mapping[str, Reach] = {"~": "near", "!": "apart"}
Status = Literal["exact", "contradicted", "open", "no count", "quoted"]
OPEN = "open: "
"""Start of the note of an open row."""
AUTHORS_CFG = "the authors' cfg "
"""Start of the note of a row whose count is that of a published cfg not in this project; then `NAME: BFLOPs`, and more."""


@dataclass(frozen=True)
class Printed:
    """A printed number, and how close our count must be to it."""

    text: str
    reach: Reach = "digits"

    @property
    def value(self) -> float:
        return float(self.text)

    def agrees(self, value: float) -> bool:
        """Whether `value`, in the unit of the text, is exactly as close as `reach` states."""
        if self.reach == "apart":
            return abs(value / self.value - 1) > NEAR
        return self.matches_digits(value) or (self.reach == "near" and abs(value / self.value - 1) <= NEAR)

    def matches_digits(self, value: float) -> bool:
        """Whether `value`, rounded to the printed number of decimals, reads the same."""
        decimals = len(self.text.partition(".")[2])
        return f"{value:.{decimals}f}" == self.text


@dataclass(frozen=True)
class Row:
    """A printed row. `model` is the name of our cfg, empty if there is none; `side` is 0 if it is not printed."""

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
        """How our counts relate to the printed ones; tests/compose verifies this for each row."""
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


def _read_table(block: str) -> Table:
    """Read a table of papers.txt: its title, `name: value` lines, and a line for each row.

    A count that ends in ~ must be near, one that ends in ! apart; s marks stored values.
    """
    title, *lines = block.strip().splitlines()
    about = dict(line.split(": ", 1) for line in lines if " | " not in line)
    columns = [name.replace("_", " ") for name in about["figures"].split()]
    rows = []
    for line in (line for line in lines if " | " in line):
        label, cfg, parameters, bflops, figures, note = (*line.split(" | "), "")[:6]
        model, _, side = cfg.partition(" ")
        row = Row(
            label=label,
            model="" if model == "-" else model,
            side=int(side or 0),
            parameters=_printed(parameters),
            bflops=_printed(bflops),
            figures=["–" if figure == "-" else figure for figure in figures.split()],
            counted="stored" if "s" in parameters else "weights",
            note=note,
        )
        assert len(row.figures) == len(columns), f"{title}: {label} has {len(row.figures)} figures"
        rows.append(row)
    return Table(title, columns, rows, about.get("remark", ""))


def _printed(text: str) -> Printed | None:
    return None if text == "-" else Printed(text.rstrip("s~!"), REACHES.get(text[-1], "digits"))


_TEXT = Path(__file__).with_name("papers.txt").read_text(encoding="utf-8")
TABLES = tuple(_read_table(block) for block in _TEXT.split("\n== ")[1:])
(TABLE_5,) = (table for table in TABLES if table.title.startswith("CSPNet Table 5"))

UNIT = 2 * 32 * 32 * 104 * 104 / 1e9
"""BFLOPs of a 1x1 convolution from 32 to 32 channels at 104x104; in this unit the bars of Figure 7 are round numbers."""
BARS: Mapping[int, float] = {
    0: 3.375, 2: 1, 3: 2, 4: 4.5, 5: 2, 6: 2, 17: 9, 19: 4, 20: 2, 21: 2, 42: 9, 44: 4, 45: 2, 46: 2, 87: 9, 89: 4, 90: 2,
    91: 2, 112: 2.25, 113: 6.25, 114: 2.5, 115: 9, 116: 0.5, 117: 0, 118: 0, 119: 2, 120: 9, 121: 0.5, 122: 0.03, 123: 2.25,
    124: 0.5, 125: 2.25, 126: 0.086, 127: 0, 128: 0.03, 129: 1, 130: 9, 131: 0.5, 132: 0.03, 133: 2.25, 134: 0, 135: 2,
    136: 9, 137: 3.98, 138: 0, 139: 4.5, 140: 0, 141: 0, 142: 2, 143: 9, 144: 1.99, 145: 0, 146: 4.5, 147: 0.5, 148: 2.25,
    149: 0.5, 150: 0,
}  # fmt: skip
"""CSPPeleeNet-EFM in Figure 7: height of each bar in UNITs by the figure's layer number; 0 for invisible ones."""

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
"""Our cfgs with a published twin (same function, same weights): its repository (by WongKinYiu or AlexeyAB) and its cfg."""

"""docs/onnx.md from the results of benchmarks/export_zoo.py.

python benchmarks/export_page.py onnx.jsonl --out docs/onnx.md
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import ROOT
from models.export.verify import TOLERANCE
from utils.files import write_text

ROUNDINGS = 10  # differences of so many times that of PyTorch's own rounding are explained by it
MOVED = 0.01  # part of what another image changes; a difference beyond it says that a model looks at something else

INTRO = """# Published cfgs as ONNX

<!-- made by benchmarks/export_page.py, do not edit -->

{count} published cfgs (AlexeyAB/darknet, CrossStagePartialNetworks, PartialResidualNetworks, PyTorch_YOLOv4), exported with
the reproducible random weights of the [recordings](parity.md) and run on a random image. We compare all boxes and
scores before NMS, or the output of classifiers, with the network in PyTorch. Differences are relative to a value's
magnitude plus 1. Two columns give the scale: how much *another image* changes the outputs, and how much PyTorch's own
*rounding* does (the same network before and after folding its batch normalisation). Large networks ran at a smaller
input size than their cfg's. Where random weights of the recorded magnitude saturate the outputs or amplify rounding,
smaller ones were used.

**The same** means a difference of at most {tolerance:g} and less than a hundredth of what another image changes; *rounding*
means a larger one of at most {roundings} times PyTorch's own.

| engine | the same | rounding | differs | cannot run it |
|---|---|---|---|---|
{totals}

{refused} cfgs are not exported; the table gives the reasons.
{reasons}
| cfg | input | other image | rounding | {engines} |
|---|---|---|---|{rules}
{rows}
"""

REASONS = """
- Networks with `xnor=1` reduce inputs to signs. A value near zero that rounds to the other side changes every later
  layer. OpenCV 4.14 computes 3x3 convolutions by Winograd's method and so rounds differently; with
  `net.enableWinograd(False)`, `darknet53_448_xnor` is the same (1e-7).
- `yolo-small` ends in `[connected]` layers with thousands of inputs, which OpenCV 5.0 sums in another order, and
  squares its outputs to get the sides of boxes: 626 of 635 boxes are the same (IoU 0.99), the others have an IoU of at
  least 0.95.
- The class tree of `yolo9000` cannot be expressed in ONNX, and `9k.tree` is not distributed with the cfg.
- The original refuses three of the cfgs, too: they join layers of different shapes.
"""


def engines_of(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row if key == "onnxruntime" or key.startswith("opencv")))


def verdict(row: dict[str, Any], engine: str) -> str:
    value = row[engine]
    if isinstance(value, str):
        return "cannot run it"
    if value <= TOLERANCE and value <= MOVED * row["other image"]:
        return "the same"
    return "rounding" if value <= ROUNDINGS * row["rounding"] else "differs"


def cell(row: dict[str, Any], engine: str) -> str:
    kind = verdict(row, engine)
    if kind == "cannot run it":
        return f"cannot run it: {row[engine]}".replace("|", "/")
    return f"{row[engine]:.0e}" if kind == "the same" else f"**{row[engine]:.0e}** ({kind})"


def line(row: dict[str, Any], engines: list[str]) -> str:
    if "refused" in row:
        return f"| {row['cfg']} | not exported: {reason(row['refused'])} |" + " |" * (2 + len(engines))
    width, height = row["size"]
    scaled = f", weights of {row['gain']:g} instead of {row['recorded gain']:g}" if "gain" in row else ""
    cells = [row["cfg"], f"{width}x{height}{scaled}", f"{row['other image']:.0e}", f"{row['rounding']:.0e}"]
    return "| " + " | ".join([*cells, *(cell(row, engine) for engine in engines)]) + " |"


def reason(text: str) -> str:
    """Without the line, and the places where a file was looked for."""
    return re.sub(r"^\d+: ", "", text.strip()).partition(", which is neither")[0].replace("|", "/")


def page(rows: list[dict[str, Any]]) -> str:
    engines = engines_of(rows)
    exported = [row for row in rows if "refused" not in row]
    totals = []
    for engine in engines:
        kinds = [verdict(row, engine) for row in exported]
        counts = [kinds.count(kind) for kind in ("the same", "rounding", "differs", "cannot run it")]
        totals.append(f"| {engine} | " + " | ".join(map(str, counts)) + " |")
    return INTRO.format(
        count=len(rows),
        tolerance=TOLERANCE,
        roundings=ROUNDINGS,
        totals="\n".join(totals),
        refused=len(rows) - len(exported),
        reasons=REASONS,
        engines=" | ".join(engines),
        rules="---|" * len(engines),
        rows="\n".join(line(row, engines) for row in rows),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="what export_zoo.py wrote")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "onnx.md")
    options = parser.parse_args()
    rows = [json.loads(each) for each in options.results.read_text("utf-8").splitlines()]
    write_text(options.out, page(sorted(rows, key=lambda row: row["cfg"])))


if __name__ == "__main__":
    main()

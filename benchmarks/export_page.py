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

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from models.export.verify import TOLERANCE
from utils.files import write_text

ROUNDINGS = 10  # differences of so many times that of PyTorch's own rounding are explained by it
MOVED = 0.01  # part of what another image changes; a difference beyond it says that a model looks at something else

INTRO = """# Published cfgs as ONNX

<!-- made by benchmarks/export_page.py, do not edit -->

{count} published cfgs (AlexeyAB/darknet, CrossStagePartialNetworks, PartialResidualNetworks, PyTorch_YOLOv4), exported with the
regenerated weights of the [recordings](parity.md) and run on a random image: all boxes and scores before suppression, or the
output of classifiers, against the network in PyTorch. Differences are relative to a value's size plus 1. Two columns say what
they mean: how much the outputs change with *another image*, and how much PyTorch's own *rounding* changes them (the same network
before and after its normalisation is folded). Large networks ran at a smaller input size than their cfg's; where the recorded
magnitude of random weights saturates the outputs, or amplifies rounding into them, a smaller one was taken.

**The same** is a difference of at most {tolerance:g} and of less than a hundredth of what another image changes. *rounding* is a
larger one of no more than {roundings} times PyTorch's own.

| engine | the same | rounding | differs | cannot run it |
|---|---|---|---|---|
{totals}

{refused} cfgs are not exported; the reasons stand in the table.
{reasons}
| cfg | input | other image | rounding | {engines} |
|---|---|---|---|{rules}
{rows}
"""

REASONS = """
- Networks with `xnor=1` reduce inputs to signs. A value near zero that rounds to the other side changes all layers behind it.
  OpenCV 4.14 rounds in another way by computing 3x3 convolutions with Winograd's method; after `net.enableWinograd(False)`
  `darknet53_448_xnor` is the same (1e-7).
- `yolo-small` ends in `[connected]` layers of thousands of inputs, which OpenCV 5.0 adds up in another order, and in boxes whose
  sides are squares of its outputs: 626 of 635 boxes are the same (overlap 0.99), the others overlap by 0.95 at least.
- Tables of class trees (`yolo9000`) are not expressed in ONNX, and `9k.tree` is not distributed with the cfg.
- Three cfgs are refused by the original, too: the layers that they join have different shapes.
"""


def engines_of(rows: list[dict[str, Any]]) -> list[str]:
    names = {key: None for row in rows for key in row if key == "onnxruntime" or key.startswith("opencv")}
    return list(names)


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

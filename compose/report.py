"""Writes docs/models.md: the papers' tables beside the project's own counts and measured latency.

python -m compose.report [--check]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compose.catalog import MODELS
from compose.parts import BACKBONES, HEADS
from compose.published import TABLES, Printed, Row, Table
from models.plan import read_plan
from models.summary import totals
from utils.cli import EXIT_FAILED, EXIT_OK, run_script
from utils.files import write_text

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "models.md"
LATENCY = ROOT / "benchmarks" / "latency.json"
INTRODUCTION = """# Models

Written by `python -m compose.report`; do not edit.

Every file of `cfg/` is plain Darknet text that the original program reads too. `python -m compose` writes them from
backbones and heads; edit the files as you like, or join other parts:
`python -m compose --pair vovnet39 panet-spp --img-size 512 --out my`.

## How to read the tables

**Counts.** Parameters are convolution weights, or, where marked ¹, all values that a `.weights` file stores. BFLOPs are
convolutions (two operations for each multiplication) and pooling; shortcuts are left out. This is how CSPNet's own tables
count: it gives the printed digits for every model whose layer table is public. `python info.py --cfg FILE` prints both
this count and that of the original program.

**Signs.** = all printed digits; ≈ within 0.3 %; ≠ further away, with the reason in the note.

**Layer tables.** *public*: the authors' own table. *derived*: from a paper's description, with no width left free.
*tuned*: the authors never published the table; the structure follows the paper's description and free widths were chosen by
us so that the totals meet the printed ones. **That totals agree does not make a tuned table the authors' table**, and
accuracy printed in a paper belongs to the authors' network, not to ours.

**Accuracy, fps** are as published, on the authors' machines. {latency}
"""
SEARCH = """## What is known about the unpublished tables

A search over stage-wise transitions found no structure without free widths that meets all printed figures of CSPPeleeNet.
Two facts came out of it. With first transitions as wide as their input, the printed BFLOPs of *fusion last* and of
CSPPeleeNet at all three partial ratios fit one formula each within rounding: both need 13.1 gamma units (of 32x32x56x56
multiply-adds, twice) beyond the transitions, and CSPPeleeNet 13 units more, as much as one square 1x1 convolution at the
start of each stage; but the parameters that this implies (2.5 to 2.8 M) miss the printed 2.83 M. And the layer bound that
follows from Figure 7 (no layer of CSPPeleeNet-EFM above 56 % of PeleeNet's largest) is not met by our table: its largest
layer is 29 % below PeleeNet's, not 44 %.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m compose.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare with docs/models.md instead of writing it")
    text = report()
    if not parser.parse_args(arguments).check:
        write_text(OUT, text)
        return EXIT_OK
    if OUT.exists() and OUT.read_text(encoding="utf-8") == text:
        return EXIT_OK
    print(f"{OUT}: differs from what python -m compose.report writes")
    return EXIT_FAILED


def report() -> str:
    """The whole page."""
    latency = json.loads(LATENCY.read_text(encoding="utf-8"))
    parts = [INTRODUCTION.format(latency=latency["about"])]
    parts += [_published_table(table, latency["ms"]) for table in TABLES]
    return "\n".join([*parts, _all_models(), SEARCH])


def _published_table(table: Table, latency: Mapping[str, float]) -> str:
    head = (
        "model", "cfg", "input", "parameters [M]", "ours", "", "BFLOPs", "ours", "",
        table.accuracy, "fps", "ours [ms]", "layer table", "note",
    )  # fmt: skip
    rows = [_published_row(row, latency) for row in table.rows]
    remark = f"\n{table.remark}\n" if table.remark else ""
    return f"## {table.title}\n{remark}\n{_markdown(head, rows)}"


def _published_row(row: Row, latency: Mapping[str, float]) -> tuple[str, ...]:
    sums = _sums(row.model, row.side)
    parameters = sums["params" if row.counted == "stored" else "conv_weights"] / 1e6
    measured = latency.get(f"{row.model}@{row.side}")
    return (
        row.label,
        row.model,
        str(row.side),
        *_compared(row.parameters, parameters, "¹" if row.counted == "stored" else ""),
        *_compared(row.bflops, sums["bflops_paper"]),
        row.accuracy or "–",
        row.fps or "–",
        f"{measured:.1f}" if measured else "–",
        _origin(row.model),
        row.note,
    )


def _compared(printed: Printed | None, value: float, mark: str = "") -> tuple[str, str, str]:
    """Printed, ours with one digit more, and the sign."""
    if printed is None:
        return "–", f"{value:.3f}{mark}", ""
    decimals = len(printed.text.partition(".")[2]) + 1
    sign = "=" if printed.matches_digits(value) else {"near": "≈"}.get(printed.reach, "≠")
    return printed.text, f"{value:.{decimals}f}{mark}", sign


def _origin(name: str) -> str:
    model = MODELS[name]
    backbone, head = BACKBONES[model.backbone].origin, HEADS[model.head].origin
    return backbone if model.head.startswith("classifier") or backbone == head else f"{backbone}, head {head}"


def _all_models() -> str:
    head = (
        "cfg", "backbone", "head", "input", "layers", "weights [M]", "stored [M]", "BFLOPs", "MAC [M]", "CIO [M]", "layer table",
    )  # fmt: skip
    rows = []
    for name, model in MODELS.items():
        sums = _sums(name, model.side)
        numbers = [sums[key] / 1e6 for key in ("conv_weights", "params")]
        traffic = [sums[key] / 1e6 for key in ("mac", "cio")]
        rows.append(
            (
                f"[{name}](../cfg/{name}.cfg)",
                BACKBONES[model.backbone].title + ("" if model.activation == "leaky" else f", {model.activation}"),
                HEADS[model.head].title,
                str(model.side),
                str(sums["layers"]),
                *(f"{number:.3f}" for number in numbers),
                f"{sums['bflops_paper']:.3f}",
                *(f"{number:.1f}" for number in traffic),
                _origin(name),
            )
        )
    text = "MAC and CIO are VoVNet's memory access cost and HarDNet's convolutional input and output, for one image."
    return f"## All files\n\n{text}\n\n{_markdown(head, rows)}"


def _sums(name: str, side: int) -> dict[str, Any]:
    return totals(read_plan(ROOT / "cfg" / f"{name}.cfg", width=side, height=side))


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(run_script(main))

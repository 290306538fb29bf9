"""Write docs/models.md: the papers' tables next to the project's counts and measured latency.

python -m compose.report [--check]
"""

from __future__ import annotations

import json
import sys
import typing
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from compose.backbones import BACKBONES
from compose.catalog import MODELS
from compose.heads import HEADS
from compose.net import Origin
from compose.published import BARS, PUBLISHED_CFGS, TABLE_5, TABLES, UNIT, Printed, Row, Status, Table
from models.layers.convolutional import ConvolutionalSection
from models.layers.pooling import MaxpoolSection
from models.plan import Plan, Step, read_plan
from models.published import PUBLISHED
from models.summary import totals
from utils.cli import EXIT_FAILED, EXIT_OK, run_script, script_parser
from utils.files import write_text

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "models.md"
LATENCY = ROOT / "benchmarks" / "latency.json"
LABELS: Mapping[Origin, str] = {
    "cfg": "published cfg",
    "public": "authors' code or table",
    "figure": "read off Figure 7",
    "derived": "derived",
    "fitted": "fitted",
}
TEMPLATE = Path(__file__).with_name("models.md.template")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = script_parser("python -m compose.report", __doc__)
    parser.add_argument("--check", action="store_true", help="compare with docs/models.md and write nothing")
    text = report()
    if not parser.parse_args(arguments).check:
        write_text(OUT, text)
        return EXIT_OK
    if OUT.exists() and OUT.read_text(encoding="utf-8") == text:
        return EXIT_OK
    print(f"{OUT}: differs from what python -m compose.report writes")
    return EXIT_FAILED


def report() -> str:
    """The complete page."""
    latency = json.loads(LATENCY.read_text(encoding="utf-8"))
    filled = {
        "latency": latency["about"],
        "twins": _twins(),
        "statuses": _statuses(),
        "tables": "\n".join(_published_table(table, latency) for table in TABLES),
        "bars": _bars(),
        "maxouts": _maxouts(),
        "files": _all_models(),
    }
    page = TEMPLATE.read_text(encoding="utf-8")
    for name, text in filled.items():
        page = page.replace(f"<{name}>\n", text.rstrip("\n") + "\n")
    return page


def _twins() -> str:
    weights = {row.cfg.removesuffix(".cfg"): row.name for row in reversed(PUBLISHED)}
    rows = [
        (name, f"{repository} {cfg}", f"`python convert.py fetch {weights[cfg]}`" if cfg in weights else "–")
        for name, (repository, cfg) in PUBLISHED_CFGS.items()
    ]
    return _markdown(("cfg", "published as", "weights"), rows)


def _statuses() -> str:
    """The number of rows with each status, per table."""
    statuses = typing.get_args(Status)
    found = [(table.title, Counter(row.status for row in table.rows)) for table in TABLES]
    total = ("all", sum((counts for _, counts in found), Counter[Status]()))
    rows = [(title, *(str(counts[status] or "") for status in statuses)) for title, counts in [*found, total]]
    return _markdown(("table", *statuses), rows)


def _published_table(table: Table, latency: Mapping[str, Any]) -> str:
    fps = latency.get("fps", {}) if table is TABLE_5 else {}
    engines = list(dict.fromkeys(engine for row in fps.values() for engine in row))
    counts = ("parameters [M]", "ours", "", "BFLOPs", "ours", "")
    ours = (*(f"{engine} here" for engine in engines), "ours [ms]", "layer table")
    head = ("model", "cfg", "input", *counts, *table.columns, *ours, "status", "note")
    rows = [_published_row(row, latency["ms"], engines, fps) for row in table.rows]
    if not any(row.model for row in table.rows):
        kept = [place for place, name in enumerate(head) if name not in ("cfg", "ours", "", *ours)]
        head, *rows = (tuple(cells[place] for place in kept) for cells in (head, *rows))
    remark = " ".join([*[table.remark] * bool(table.remark), *[latency["fps_about"]] * bool(fps)])
    remark = f"\n{remark}\n" if remark else ""
    return f"## {table.title}\n{remark}\n{_markdown(head, rows)}"


def _published_row(
    row: Row, latency: Mapping[str, float], engines: Sequence[str], fps: Mapping[str, Mapping[str, float]]
) -> tuple[str, ...]:
    """The cells of a row; "–" for anything not printed or not available for our cfg."""
    stored, key = row.counted == "stored", f"{row.model}@{row.side}"
    sums = totals(_plan(row.model, row.side)) if row.model else {}
    parameters = sums["params" if stored else "conv_weights"] / 1e6 if sums else None
    return (
        row.label,
        row.model or "–",
        str(row.side or "–"),
        *_compared(row.parameters, parameters, "¹" if stored else ""),
        *_compared(row.bflops, sums.get("bflops_paper")),
        *row.figures,
        *(f"{fps[key][engine]:.0f}" if engine in fps.get(key, {}) else "–" for engine in engines),
        f"{latency[key]:.1f}" if latency.get(key) else "–",
        _origin(row.model) if row.model else "–",
        row.status,
        row.note,
    )


def _compared(printed: Printed | None, value: float | None, mark: str = "") -> tuple[str, str, str]:
    """The printed number, ours with one more digit, and the sign that compares them."""
    if value is None:
        return printed.text if printed else "–", "–", ""
    if printed is None:
        return "–", f"{value:.3f}{mark}", ""
    decimals = len(printed.text.partition(".")[2]) + 1
    sign = "=" if printed.matches_digits(value) else {"near": "≈"}.get(printed.reach, "≠")
    return printed.text, f"{value:.{decimals}f}{mark}", sign


def _origin(name: str) -> str:
    model = MODELS[name]
    backbone, head = LABELS[BACKBONES[model.backbone].origin], LABELS[HEADS[model.head].origin]
    return backbone if model.head.startswith("classifier") or backbone == head else f"{backbone}; head {head}"


def figure_layers(plan: Plan) -> list[Step]:
    """The layers that are numbered in Figure 7."""
    return [step for step in plan.steps if step.section.names[0] in ("convolutional", "maxpool", "upsample", "yolo")]


def bflops(step: Step) -> float:
    """BFLOPs of a layer as counted in CSPNet's tables."""
    return (step.cost.operations - step.cost.elementwise) / 1e9


def _bars() -> str:
    rows = []
    for number, step in enumerate(figure_layers(_plan("csppeleenet-efm-plain", 416))):
        if number >= 114:
            out = step.reported_shape
            units = (_units(BARS[number]), _units(bflops(step) / UNIT))
            rows.append((str(number), *units, _layer(step), f"{out.channels} at {out.width}x{out.height}"))
    return _markdown(("layer", "measured", "ours", "", "output"), rows)


def _layer(step: Step) -> str:
    section = step.section
    if isinstance(section, ConvolutionalSection):
        return f"{section.size}x{section.size}{'/2' if section.stride > 1 else ''} of {step.site.input.channels}"
    return "Maxout" if is_maxout(step) else section.names[0]


def _units(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if value >= 0.02 else "."


def is_maxout(step: Step) -> bool:
    return isinstance(step.section, MaxpoolSection) and bool(step.section.maxpool_depth)


def _maxouts() -> str:
    steps = [step for step in _plan("csppeleenet-efm-plain", 416).steps if is_maxout(step)]
    rows, sizes = [], [(step.site.input.outputs, step.reported_shape.outputs) for step in steps]
    for step, size in zip(steps, sizes, strict=True):
        before, after = step.site.input, step.reported_shape
        place = f"{before.channels} to {after.channels} channels at {before.width}x{before.height}"
        rows.append((place, *_saved(*size)))
    return _markdown(("Maxout", "in", "out", ""), [*rows, ("all", *_saved(*map(sum, zip(*sizes, strict=True))))])


def _saved(before: int, after: int) -> tuple[str, str, str]:
    return f"{before:,}", f"{after:,}", f"-{1 - after / before:.1%}".replace("%", " %")


def _all_models() -> str:
    head = (
        "cfg", "backbone", "head", "input", "layers", "weights [M]", "stored [M]", "BFLOPs", "MAC [M]", "CIO [M]", "layer table",
    )  # fmt: skip
    rows = []
    for name, model in MODELS.items():
        sums = totals(_plan(name, model.side))
        rows.append(
            (
                f"[{name}](../cfg/{name}.cfg)",
                BACKBONES[model.backbone].title + ("" if model.activation == "leaky" else f", {model.activation}"),
                HEADS[model.head].title,
                str(model.side),
                str(sums["layers"]),
                *(f"{sums[key] / 1e6:.3f}" for key in ("conv_weights", "params")),
                f"{sums['bflops_paper']:.3f}",
                *(f"{sums[key] / 1e6:.1f}" for key in ("mac", "cio")),
                _origin(name),
            )
        )
    text = "MAC and CIO are VoVNet's memory access cost and HarDNet's convolutional input and output, for one image."
    return f"## All files\n\n{text}\n\n{_markdown(head, rows)}"


@cache
def _plan(name: str, side: int) -> Plan:
    return read_plan(ROOT / "cfg" / f"{name}.cfg", width=side, height=side)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(run_script(main))

"""Write docs/models.md: the papers' tables beside the project's counts and measured latency.

python -m compose.report [--check]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from compose.backbones import BACKBONES
from compose.catalog import MODELS
from compose.heads import HEADS
from compose.net import Origin
from compose.published import BARS, PUBLISHED_CFGS, TABLES, UNIT, Printed, Row, Table
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
INTRODUCTION = """# Models

Written by `python -m compose.report`; do not edit.

Every file in `cfg/` is plain Darknet text that the original program reads too. `python -m compose` writes them from backbones
and heads; edit the files as you like, or join other parts:
`python -m compose --pair vovnet39 panet-spp --img-size 512 --out my`.

## How to read the tables

**Counts.** Parameters are convolution weights or, where marked ¹, all values that a `.weights` file stores. BFLOPs are
convolutions (two operations per multiply-add) and pooling, without shortcuts. CSPNet's own tables count like this: it gives
the printed digits for every model whose layer table is public. `python info.py --cfg FILE` prints this count and that of
the original program.

**Signs.** = all printed digits; ≈ within 0.3 %; ≠ further away, with the reason in the note.

**Layer tables.**

| | |
| --- | --- |
| published cfg | the authors published a cfg; a test holds ours to the same outputs with the same weights |
| authors' code or table | from code or a layer table that the authors published in another form |
| read off Figure 7 | measured from the bars of [CSPNet's Figure 7](#csppeleenet-and-efm-read-off-figure-7); no width is fitted |
| derived | from a paper's description; no width is fitted |
| fitted | not published; the structure follows the description and free widths were chosen to meet the printed totals |

**Equal totals do not make a fitted table the authors' table**, and the accuracy that a paper prints belongs to the authors'
network. This project has not trained its cfgs on ImageNet or COCO.

**Accuracy and fps** are as published, on the authors' machines. {latency}
"""
TWINS = """## Published cfgs and weights

These cfgs have a twin that was published for Darknet: same function, same weights, same training settings (YOLOv3 and PRN were
published with batch 1, for inference). The weights are those that their authors link.

{rows}
The authors of VoVNet link PyTorch weights of VoVNet-39 and -57, in the form of `vovnet39.cfg` and `vovnet57.cfg`, which
`python convert.py weights --cfg cfg/vovnet39.cfg` reads. PeleeNet's authors published Caffe and PyTorch code. For SPeleeNet,
PeleeNeXt, CSPPeleeNet, the Reference networks and CSPResNet-10, and for the heads PRN-3l, EFM, GFM and CEM, neither cfgs nor
weights were ever published.
"""
FIGURE_7 = """## CSPPeleeNet and EFM, read off Figure 7

Figure 7 plots the BFLOPs of every layer of three detectors at 416 x 416, without numbers. Its bars can be measured: where the
layers are known (PeleeNet with PRN) they are met within 0.0011 BFLOPs. In units of 1x1, 32 to 32 channels at 104 x 104
(0.02215 BFLOPs) almost all bars of CSPPeleeNet-EFM are round, and the layer is the simplest one of that cost. A bar gives only a
cost; activations, the order within concatenations, and which of two equal 1x1 is which cannot be seen. What speaks for the
reading:

- The numbering agrees: convolutions, poolings, upsamplings and [yolo] layers of `csppeleenet-efm-plain` are exactly 0 to 150.
- With nothing fitted the totals are printed digit by digit: CSPPeleeNet at three gammas and its parameters, fusion last at three
  gammas, PRN, PRN-3l, EFM, and EFM (SAM) at both sizes and its parameters. Gamma applies to stages 2 to 4; stage 1 stays at 0.5.
- The EFM head on the Reference backbones meets their four printed counts too, which Figure 7 does not show.
- The highest bars are 45, 16 and 9 units: -80.0 % and -43.75 % (printed -80 % and -44 %).

SAM is not in the figure. A 1x1 with as many outputs as inputs on each of the three assembled maps (128, 256 and 256 channels at
/8, /16 and /32) adds 9 units and 0.147 M weights; 0.200 BFLOPs and 4.31 M in all are printed. One bar is read at some distance:
126 at 0.0019 BFLOPs instead of 0.0028. C2, which EFM reads at /4, has 64 channels: with 128 the total would print 4.869.

The head, layer by layer, in units ("." below 0.02):

{bars}
"""
CLAIM = """## The 75 % claim

CSPNet's introduction says that cross-channel pooling (Maxout) cuts the memory for building the feature pyramid by 75 %, without
a table. Elements of the maps that Maxout reads and writes in `csppeleenet-efm-plain` at 416 x 416:

{maxouts}

So Maxout saves 75 % wherever it keeps one channel in four, as it does for three of the five maps. It is not a figure for the
whole pyramid.
"""
CLAIMS = """## Claims of CSPNet's text

| section | claim | from the printed tables | holds |
| --- | --- | --- | --- |
| abstract, 1 | 10 to 20 % less computation at equal or better accuracy | -12.7, -16.2, -18.7 and -21.6 % (Table 3) | roughly |
| 1 | PeleeNet's computational bottleneck is halved, that of YOLOv3-based models cut by 80 % | -43.75 %, -80.0 % (Figure 7) | not half |
| 1 | 50 % AP50 at 109 fps, 40 % at 52 fps, 42 % at 49 fps on the three devices | 50.4, 40.0, 42.2 | yes |
| 3.1 | a partial dense block saves at most half of the memory traffic | the limit of (c m + (m² + m) d / 2) / 2 over c m + (m² + m) d / 2 | yes |
| 4.2 | fusion last: -21 % and -0.1 top-1; gamma 0.25: -11 % and +0.1 | 0.804 and 0.902 of 1.017; 70.6 and 70.8 against 70.7 | yes |
| 4.2 | CSPPeleeNet: -13 % and +0.2; gamma 0.25: -3 % and +0.8 | 0.888 and 0.986 of 1.017; 70.9 and 71.5 | yes |
| 4.2 | fusion first is slightly better than SPeleeNet and PeleeNeXt | 69.2 is below SPeleeNet's 69.6; gamma 0.25 has 70.0 | only gamma 0.25 |
| 4.2 | EFM is 2 fps slower than GFM, with 2.1 more AP and 2.4 more AP50 | 132 and 134; 26.4 - 24.3; 48.6 - 46.2 | yes |
| 4.2 | GIoU adds 0.7 AP and costs 2.7 AP50 | 27.1 - 26.4; 48.6 - 45.9 | yes |
| 4.2 | SAM beats SPP in fps and AP; swish adds 1 AP | 129 and 128, 26.8 and 26.2; 24.1 - 23.1 | yes |
| 4.3 | CSP saves at least 10 %; CSPResNet-10 gains 1.8 | 12.7 % and more; 65.3 - 63.5 | yes |
| 4.3 | SECSPPeleeNet-swish beats EfficientNet-B0* by 1.1 at 3 % less | 72.4 - 71.3; 0.888 of 0.915 | yes |
| 4.4 | CSPResNeXt50-PANet (SPP) leads at 30 to 100 fps | AP50 60.6 is also YOLOv3 (SPP)'s | tie |
| 4.4 | at 512: 0.7 AP, 1.5 AP50 and 1.1 AP75 above LRF | 38.0 - 37.3; 60.0 - 58.5; 40.8 - 39.7 | yes |
| 4.4 | 12.1 AP50 above Pelee and 4.1 above CenterNet at their speed | 50.4 - 38.3; 49.0 - 44.9 | yes |
| 4.4 | 133 fps and 0.5 AP50 above SNet49; PRN (3l) 19 fps above SNet146 | 400 - 267, 34.2 - 33.7; 267 - 248 | yes |
| 4.5 | CIO falls to 32.6 M from 34.4 M, computation by 22 % | -5.2 %; 7.93 of 10.11 | yes |
| 4.5 | i9: 55, 48 and 31 fps above SNet49, YOLOv3-tiny and its PRN form | 102 - 47, 102 - 54, 102 - 71 | yes |
| 4.5 | TX2: EFM (SAM) is faster than YOLOv3-tiny, with 11.5 more AP50 | 41 and 37; 44.6 - 33.1 | yes |
"""
OPEN = """## Open

- **Fusion first** (0.861, 0.755, 0.649 BFLOPs). The cost falls by 0.106 per quarter of gamma, twice what narrower dense blocks
  save. 65,000 combinations were counted: either stem, the dense layers of PeleeNet or of CSPPeleeNet, gamma in stage 1 or not,
  each part by 1x1, by slicing or passed whole, transitions before or after the pooling with eight choices of width, and seven
  endings. None meets all three totals; the nearest misses by 0.0026. Our transitions are fitted.
- **The Reference backbones.** Differences between printed rows give the last layer: 512 channels, by 3x3, or by 1x1 in the b
  forms. The rest is fitted.
- **CSPResNet-10, CSPDenseNet-201-Elastic, HarDNet-138s, SE**: positions or widths are not published.
- **GFM and CEM** meet their printed totals with widths of powers of two, but no bar confirms them. CEM (SAM) and CEM differ by
  1x1 convolutions of 128 channels on the three maps.
- **PAN2** (4.33 and 2.56 BFLOPs): several forms have that cost, none stands out. Pelee2 was never described.
- **Figure 8**: CIO of 34.4 M for ResNeXt-50 and 32.6 M for CSPResNeXt-50 at 256 x 256 are met.
- **DenseNet-40 with OSA** (VoVNet section 3.2): output widths are not printed. 5 x 43 with as many output channels as its layers
  give has the printed MAC of 2.5 M; two width-keeping transitions give 2.05 M, three 2.57 M.
- **VoVNet's DSOD and RefineDet detectors** have heads that Darknet does not have.

## Printed numbers that contradict each other

Those of one row are in its note. Further ones:

- Weight decay is printed as 0.005 and the steps of ResNet-like networks as "8000,000"; every ImageNet cfg of the authors has
  0.0005 and 800,000. COCO trains 500,000 steps in print, 500,500 or 500,200 in the cfgs. The cfgs here follow the cfgs, with the
  paper's 1,600,000 steps for the dense networks, which have no published cfg.
- "Computation cut in half" (introduction) is 43.75 % (Figure 7).
- Section 3.1 links x0'' to the end of the stage; equations and Figure 2 link x0'. The cfgs follow the equations.
- CSPResNeXt-50 is called best in all of Table 3; ResNeXt-50 has the higher top-5 (94.2).
- VoVNet's stem is stride 1 with pooling in its Table 1 and Caffe code, stride 2 in the PyTorch code: both are here.
- VoVNet's README trains with batch 128 in one sentence and 256 in another; its script defaults to 256.
- VoVNet's gains on small objects are quoted over DenseNet-121, which no table has; over DenseNet-201 they are 1.5, over -161 1.2.
- Round factors in VoVNet's text are larger than its tables: Pelee with a fifth of DenseNet-67's FLOPs (4.4), ten times the
  GFLOP/s (9.5), three times DenseNet-201's (2.7), twice as fast as DenseNet (2.1, but 1.66 for VoVNet-57).
"""


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
    """The whole page."""
    latency = json.loads(LATENCY.read_text(encoding="utf-8"))
    parts = [INTRODUCTION.format(latency=latency["about"]), _published_cfgs()]
    parts += [_published_table(table, latency["ms"]) for table in TABLES]
    parts += [FIGURE_7.format(bars=_bars()), CLAIM.format(maxouts=_maxouts()), CLAIMS, OPEN, _all_models()]
    return "\n".join(parts)


def _published_cfgs() -> str:
    weights = {row.cfg.removesuffix(".cfg"): row.name for row in reversed(PUBLISHED)}
    rows = [
        (name, f"{repository} {cfg}", f"`python convert.py fetch {weights[cfg]}`" if cfg in weights else "–")
        for name, (repository, cfg) in PUBLISHED_CFGS.items()
    ]
    return TWINS.format(rows=_markdown(("cfg", "published as", "weights"), rows))


def _published_table(table: Table, latency: Mapping[str, float]) -> str:
    counted = any(row.model for row in table.rows)
    ours = ("ours [ms]", "layer table") if counted else ()
    head = (
        "model",
        *(("cfg",) if counted else ()),
        "input",
        *_count_heads("parameters [M]", counted),
        *_count_heads("BFLOPs", counted),
        *table.columns,
        *ours,
        "note",
    )
    rows = [_published_row(row, latency, counted) for row in table.rows]
    remark = f"\n{table.remark}\n" if table.remark else ""
    return f"## {table.title}\n{remark}\n{_markdown(head, rows)}"


def _count_heads(name: str, counted: bool) -> tuple[str, ...]:
    return (name, "ours", "") if counted else (name,)


def _published_row(row: Row, latency: Mapping[str, float], counted: bool) -> tuple[str, ...]:
    input_side = str(row.side or "–")
    if not row.model:
        printed = [number.text if number else "–" for number in (row.parameters, row.bflops)]
        if not counted:
            return row.label, input_side, *printed, *row.figures, row.note
        return row.label, "–", input_side, printed[0], "–", "", printed[1], "–", "", *row.figures, "–", "–", row.note
    sums = totals(_plan(row.model, row.side))
    parameters = sums["params" if row.counted == "stored" else "conv_weights"] / 1e6
    measured = latency.get(f"{row.model}@{row.side}")
    return (
        row.label,
        row.model,
        input_side,
        *_compared(row.parameters, parameters, "¹" if row.counted == "stored" else ""),
        *_compared(row.bflops, sums["bflops_paper"]),
        *row.figures,
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
    backbone, head = LABELS[BACKBONES[model.backbone].origin], LABELS[HEADS[model.head].origin]
    return backbone if model.head.startswith("classifier") or backbone == head else f"{backbone}; head {head}"


def figure_layers(plan: Plan) -> list[Step]:
    """The layers that Figure 7 numbers."""
    return [step for step in plan.steps if step.section.names[0] in ("convolutional", "maxpool", "upsample", "yolo")]


def bflops(step: Step) -> float:
    """Its BFLOPs as CSPNet's tables count."""
    return (step.cost.operations - step.cost.elementwise) / 1e9


def _bars() -> str:
    rows = []
    for number, step in enumerate(figure_layers(_plan("csppeleenet-efm-plain", 416))):
        if number >= 114:
            height, width, channels = step.reported_shape.hwc
            cells = (_units(BARS[number]), _units(bflops(step) / UNIT), _layer(step), f"{channels} at {width}x{height}")
            rows.append((str(number), *cells))
    return _markdown(("layer", "measured", "ours", "", "output"), rows)


def _layer(step: Step) -> str:
    section = step.section
    if isinstance(section, ConvolutionalSection):
        return f"{section.size}x{section.size}{'/2' if section.stride > 1 else ''} of {step.site.input.hwc[2]}"
    return "Maxout" if is_maxout(step) else section.names[0]


def _units(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if value >= 0.02 else "."


def is_maxout(step: Step) -> bool:
    return isinstance(step.section, MaxpoolSection) and bool(step.section.maxpool_depth)


def _maxouts() -> str:
    rows, sums = [], [0, 0]
    for step in _plan("csppeleenet-efm-plain", 416).steps:
        if is_maxout(step):
            shapes = [step.site.input.hwc, step.reported_shape.hwc]
            sizes = [height * width * channels for height, width, channels in shapes]
            sums = [a + b for a, b in zip(sums, sizes, strict=True)]
            name = f"{shapes[0][2]} to {shapes[1][2]} channels at {shapes[0][1]}x{shapes[0][0]}"
            rows.append((name, *_saved(*sizes)))
    return _markdown(("Maxout", "in", "out", ""), [*rows, ("all", *_saved(*sums))])


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

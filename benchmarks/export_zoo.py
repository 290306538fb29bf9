"""Export every cfg of a collection to ONNX, and compare ONNX Runtime and OpenCV with PyTorch.

Weights are generated as for the tests' recordings of the original: the same recipe, the same magnitude (a smaller one where
outputs would not be meaningful). Two numbers give the scale of a difference: how much the outputs change with another image,
and with PyTorch's rounding alone (the same network with batch normalisation folded). The result for each cfg is appended to a
file as a line of JSON; a second run skips the cfgs in the file. --page writes docs/onnx.md from the complete file:

  python benchmarks/export_zoo.py --limit 192 --out onnx.jsonl --opencv /env5/bin/python /env4/bin/python -- "zoo/**/*.cfg"
  python benchmarks/export_zoo.py --out onnx.jsonl --page docs/onnx.md
"""

from __future__ import annotations

import argparse
import gc
import glob
import json
import logging
import re
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import ROOT
from benchmarks.inference import Engine, opencv_engine
from inference.backends import OnnxRuntimeSession
from models.export.build import ExportOptions
from models.export.onnx import save_onnx
from models.export.verify import TOLERANCE, Expected, difference, expected
from models.layers.base import blank_weights
from models.network import Network
from models.plan import Plan, read_plan
from models.weights import load_weights
from tests.recipe import weights_file
from utils.errors import InputError, RunError
from utils.files import write_text

RECORDINGS = ROOT / "tests" / "reference" / "zoo"
USUAL_GAIN = 0.8  # for cfgs that the original does not run
STEPS = 5  # number of gains to try
TELLING_MOVE, TELLING_ROUNDING = (1e-4, 5.0), 3e-5  # change by another image and by rounding in meaningful outputs


def planned(path: Path, limit: int) -> Plan:
    """Plan the cfg, at a smaller input size if its own exceeds the limit and another one is possible."""
    plan = read_plan(path)
    for side in (limit, 384, 512):  # 384 is divisible by 128, which networks with seven levels need
        if limit and max(plan.input.size_wh) > side:
            try:
                return read_plan(path, width=side, height=side)
            except InputError:
                continue
    return plan


def recorded_gain(name: str) -> float:
    """Magnitude of the weights used to record the original."""
    files = json.loads((RECORDINGS / "forward_map.json").read_text("utf-8"))
    if name not in files:
        return USUAL_GAIN
    with np.load(RECORDINGS / "forward" / files[name]) as recording:
        return float(json.loads(str(recording["meta"]))["gain"])


def network_of(plan: Plan, gain: float, folder: Path) -> Network:
    with blank_weights():
        network = Network(plan)
    weights = folder / "recipe.weights"
    weights.write_bytes(weights_file(network.tensors(), 1, gain))
    load_weights(network, weights)
    weights.unlink()
    return network.eval().requires_grad_(False)


def telling(
    plan: Plan, settings: ExportOptions, gain: float, folder: Path
) -> tuple[Network, Expected, dict[str, float]]:
    """A folded network, its expected outputs, and the numbers that give the scale of a difference.

    The gain is smaller than the recording's if outputs saturate, or if rounding alone changes them a lot.
    """
    for lower in range(STEPS):
        used = round(gain - 0.1 * lower, 1)
        network = network_of(plan, used, folder)
        check, other = (expected(network, settings, seed=seed)[0] for seed in (0, 1))
        moved = difference(other.outputs, check.outputs, settings.outputs)
        network.fold()
        rounding = difference(expected(network, settings)[0].outputs, check.outputs, settings.outputs)
        if TELLING_MOVE[0] < moved < TELLING_MOVE[1] and rounding < TELLING_ROUNDING:
            break
    told = {"other image": moved, "rounding": rounding}
    return network, check, told if used == gain else told | {"gain": used, "recorded gain": gain}


def examined(path: Path, options: argparse.Namespace, others: dict[str, Engine], folder: Path) -> dict[str, Any]:
    """The result for one cfg."""
    row: dict[str, Any] = {"cfg": named(path)}
    try:
        plan = planned(path, options.limit)
        settings = ExportOptions(outputs="boxes" if plan.box_heads else "raw", opset=options.opset)
        row |= {"size": plan.input.size_wh, "outputs": settings.outputs}
        network, check, told = telling(plan, settings, recorded_gain(row["cfg"]), folder)
        row |= told
        model = folder / "model.onnx"
        save_onnx(network, model, settings)
    except (InputError, RunError) as error:
        return row | {"refused": str(error).removeprefix(str(path)).lstrip(":")}
    del network
    gc.collect()
    session = OnnxRuntimeSession(model, torch.device("cpu"))
    row["onnxruntime"] = difference(session.run(check.images), check.outputs, settings.outputs)
    del session
    gc.collect()
    names = ["boxes", "scores"] if plan.box_heads else [f"output_{step.index}" for step in plan.heads]
    for version, opencv in others.items():
        row[f"opencv {version}"] = asked(opencv, model, check, names, settings, folder)
    return row


def asked(
    other: Engine, model: Path, check: Expected, names: list[str], settings: ExportOptions, folder: Path
) -> float | str:
    np.save(folder / "input.npy", check.images)
    answer = other.ask("save", model, folder / "input.npy", folder / "output.npz")
    if answer != "ok":
        return answer or "it crashed"
    with np.load(folder / "output.npz") as found:
        outputs = [found[name].reshape(wanted.shape) for name, wanted in zip(names, check.outputs, strict=True)]
    return difference(outputs, check.outputs, settings.outputs)


ROUNDINGS = 10  # a difference of up to this many times PyTorch's own rounding counts as rounding
MOVED = 0.01  # a larger fraction of the change by another image means that the models compute different functions

INTRO = """# Published cfgs as ONNX

<!-- made by benchmarks/export_zoo.py, do not edit -->

{count} published cfgs (AlexeyAB/darknet, CrossStagePartialNetworks, PartialResidualNetworks, PyTorch_YOLOv4), exported with
the reproducible random weights of the [recordings](parity.md) and run on a random image. We compare all boxes and
scores before NMS, or the output of classifiers, with the network in PyTorch. Differences are relative to a value's
magnitude plus 1. Two columns show the scale: how much the outputs change with *another image*, and how much with
PyTorch's own *rounding* (the same network before and after folding its batch normalisation). Large networks ran at a
smaller input size than in their cfg. Where random weights of the recorded magnitude saturate the outputs or amplify
rounding, smaller weights were used.

**The same** means a difference of at most {tolerance:g} and less than a hundredth of what another image changes; *rounding*
means a larger difference of at most {roundings} times PyTorch's own.

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
- `yolo-small` ends in `[connected]` layers with thousands of inputs, which OpenCV 5.0 sums in a different order, and
  squares its outputs to get the sides of boxes. 626 of 635 boxes are the same (IoU 0.99), and the others have an IoU of
  at least 0.95.
- The class tree of `yolo9000` cannot be expressed in ONNX, and `9k.tree` is not distributed with the cfg.
- The original also rejects three of the cfgs, because they join layers of different shapes.
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


def page_line(row: dict[str, Any], engines: list[str]) -> str:
    if "refused" in row:
        return f"| {row['cfg']} | not exported: {reason(row['refused'])} |" + " |" * (2 + len(engines))
    width, height = row["size"]
    scaled = f", weights of {row['gain']:g} instead of {row['recorded gain']:g}" if "gain" in row else ""
    cells = [row["cfg"], f"{width}x{height}{scaled}", f"{row['other image']:.0e}", f"{row['rounding']:.0e}"]
    return "| " + " | ".join([*cells, *(cell(row, engine) for engine in engines)]) + " |"


def reason(text: str) -> str:
    """The reason without line number and without the folders that were searched for a file."""
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
        rows="\n".join(page_line(row, engines) for row in rows),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfgs", nargs="*", help="files or globs")
    parser.add_argument("--limit", type=int, default=0, help="largest input size, for cfgs that allow another one")
    parser.add_argument("--opset", type=int, default=ExportOptions.opset)
    parser.add_argument("--opencv", nargs="*", default=[sys.executable], help="Python interpreters with cv2 to compare")
    parser.add_argument("--out", help="file of JSON lines to append to")
    parser.add_argument("--page", type=Path, help="file to write as docs/onnx.md, from the lines in --out")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(options.threads)
    found = {path for pattern in options.cfgs for path in glob.glob(pattern, recursive=True)}  # noqa: PTH207, the pattern may be absolute
    done = {row["cfg"] for row in rows_of(options.out)}
    if missing := [path for path in sorted(map(Path, found)) if named(path) not in done]:
        measure(missing, options)
    if options.page:
        write_text(options.page, page(sorted(rows_of(options.out), key=lambda row: row["cfg"])))


def measure(paths: list[Path], options: argparse.Namespace) -> None:
    """Print and store the result for each cfg."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        engines = [stack.enter_context(closing(opencv_engine(each, options.threads))) for each in options.opencv]
        others = {engine.ask("version"): engine for engine in engines}
        for path in paths:
            start = time.perf_counter()
            row = examined(path, options, others, Path(folder))
            text = json.dumps(row | {"seconds": round(time.perf_counter() - start, 1)})
            print(text, flush=True)
            if options.out:
                with Path(options.out).open("a", encoding="utf-8") as file:
                    print(text, file=file)


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def rows_of(out: str | None) -> list[dict[str, Any]]:
    """The results already in a file of JSON lines."""
    if not out or not Path(out).exists():
        return []
    return [json.loads(line) for line in Path(out).read_text("utf-8").splitlines()]


if __name__ == "__main__":
    main()

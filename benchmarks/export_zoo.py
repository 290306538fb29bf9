"""Every cfg of a collection as ONNX: does it export, and do ONNX Runtime and OpenCV compute the same?

Weights are those of the recordings that the tests hold of the original: the same recipe, the same magnitude (a smaller one where
outputs would tell nothing). Two numbers say what a difference means: how much the outputs change with another image, and by the
rounding of PyTorch alone (the same network with its normalisation folded). Each cfg is a line of JSON, added to a file as soon
as it is known; a second call leaves out what the file has. benchmarks/export_page.py makes docs/onnx.md of it:

  python benchmarks/export_zoo.py --limit 192 --out onnx.jsonl --opencv /env5/bin/python /env4/bin/python -- "zoo/**/*.cfg"
  python benchmarks/export_page.py onnx.jsonl --out docs/onnx.md
"""

from __future__ import annotations

import argparse
import gc
import glob
import json
import logging
import sys
import tempfile
import time
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
from models.export.verify import Expected, difference, expected
from models.layers.base import blank_weights
from models.network import Network
from models.plan import Plan, read_plan
from models.weights import load_weights
from tests.recipe import weights_file
from utils.errors import InputError, RunError

RECORDINGS = ROOT / "tests" / "reference" / "zoo"
USUAL_GAIN = 0.8  # of cfgs that the original does not run
STEPS = 5  # of gains that are tried
MOVED, ROUNDING = (1e-4, 5.0), 3e-5  # what another image and rounding change in outputs that tell something


def planned(path: Path, limit: int) -> Plan:
    """The plan, at a smaller input size where the cfg's exceeds the limit and allows another."""
    plan = read_plan(path)
    for side in (limit, 384, 512):  # the second is divisible by 128, as networks with seven levels need it
        if limit and max(plan.input.width, plan.input.height) > side:
            try:
                return read_plan(path, width=side, height=side)
            except InputError:
                continue
    return plan


def recorded_gain(name: str) -> float:
    """Magnitude of the weights that the original was recorded with."""
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
    """A folded network, what it gives, and the numbers that say how much that tells.

    With a smaller gain than the recording's where outputs are saturated, or where rounding alone changes them much.
    """
    for lower in range(STEPS):
        used = round(gain - 0.1 * lower, 1)
        network = network_of(plan, used, folder)
        check, other = (expected(network, settings, seed=seed)[0] for seed in (0, 1))
        moved = difference(other.outputs, check.outputs, settings.outputs)
        network.fold()
        rounding = difference(expected(network, settings)[0].outputs, check.outputs, settings.outputs)
        if MOVED[0] < moved < MOVED[1] and rounding < ROUNDING:
            break
    told = {"other image": moved, "rounding": rounding}
    return network, check, told if used == gain else told | {"gain": used, "recorded gain": gain}


def examined(path: Path, options: argparse.Namespace, others: dict[str, Engine], folder: Path) -> dict[str, Any]:
    """What became of one cfg."""
    row: dict[str, Any] = {"cfg": named(path)}
    try:
        plan = planned(path, options.limit)
        settings = ExportOptions(outputs="boxes" if plan.box_heads else "raw", opset=options.opset)
        row |= {"size": [plan.input.width, plan.input.height], "outputs": settings.outputs}
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfgs", nargs="+", help="files or globs")
    parser.add_argument(
        "--limit", type=int, default=0, help="largest input size, where a cfg allows another than its own"
    )
    parser.add_argument("--opset", type=int, default=ExportOptions.opset)
    parser.add_argument("--opencv", nargs="*", default=[sys.executable], help="interpreters with cv2 to ask")
    parser.add_argument("--out", help="file of JSON lines to add to")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(options.threads)
    found = {path for pattern in options.cfgs for path in glob.glob(pattern, recursive=True)}  # noqa: PTH207, absolute, too
    paths = sorted(map(Path, found))
    done = known(options.out)
    with tempfile.TemporaryDirectory() as folder:
        engines = [opencv_engine(python, options.threads) for python in options.opencv]
        others = {engine.ask("version"): engine for engine in engines}
        for path in paths:
            if named(path) in done:
                continue
            start = time.perf_counter()
            row = examined(path, options, others, Path(folder))
            line = json.dumps(row | {"seconds": round(time.perf_counter() - start, 1)})
            print(line, flush=True)
            if options.out:
                with Path(options.out).open("a", encoding="utf-8") as file:
                    print(line, file=file)
        for engine in engines:
            engine.close()


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def known(out: str | None) -> set[str]:
    """Names of the cfgs that a file of JSON lines has already."""
    if not out or not Path(out).exists():
        return set()
    return {json.loads(line)["cfg"] for line in Path(out).read_text("utf-8").splitlines()}


if __name__ == "__main__":
    main()

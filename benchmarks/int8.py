"""Compare 8-bit with float models: mAP and processor time of each engine, in one run.

Exports are kept in --out and reused, so that a second run only measures speed. If a dataset has a single split, every other
image is used for calibration and the rest for measuring mAP. Engines take turns on a prepared image, with one thread each;
processor time depends little on other load.

  python benchmarks/int8.py --out runs/int8 --model weights/scenes.cfg weights/scenes.weights big/scenes.data
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import table
from data.sources import open_data
from evaluation.int8 import Int8Data, calibrate, quality, spread
from export import CALIBRATION_IMAGES
from inference.backends import ExportedModel, OnnxRuntimeSession, OpenVinoSession, Session
from inference.model import model_of
from models.export.build import ExportOptions
from models.export.int8 import Quantization
from models.export.onnx import save_onnx
from models.export.openvino import save_openvino
from models.formats.files import LoadOptions, load_model
from models.layers.convolve import has_bfloat16

CPU = torch.device("cpu")
KINDS = {".onnx": (save_onnx, OnnxRuntimeSession), ".xml": (save_openvino, OpenVinoSession)}


def data_of(path: str, count: int) -> Int8Data:
    dataset = open_data(path)
    if len(dataset.splits) > 1:
        return Int8Data.open(path, count)
    (images,) = dataset.splits.values()
    return Int8Data(f"half of {path}", spread(images[::2], count), replace(dataset, splits={"val": images[1::2]}))


def write(cfg: str, weights: str, data_path: str, folder: Path, count: int) -> None:
    """Write float and 8-bit models for both engines; the 8-bit ones record their mAP."""
    network, names = load_model(weights, LoadOptions(cfg=cfg))
    network.fold()
    options, data = ExportOptions(outputs="raw"), data_of(data_path, count)
    ranges = calibrate(network, options, data)
    for suffix, (save, opener) in KINDS.items():
        int8 = Quantization(ranges=ranges)
        values = []
        for kind, chosen in (("", options), ("-int8", replace(options, int8=int8))):
            path = folder / f"{Path(cfg).stem}{kind}{suffix}"
            save(network, path, chosen, names)
            values.append(quality(model_of(ExportedModel(opener(path, CPU), str(path)), CPU), data).value)
        report = {"float": values[0], "int8": values[1], "images": len(data.images)}
        save(network, path, replace(options, int8=replace(int8, report=report)), names)


def timed(sessions: dict[str, Session], turns: int, runs: int) -> dict[str, float]:
    """Median processor milliseconds per run of each session."""
    (width, height) = next(iter(sessions.values())).metadata.size_wh
    images = np.random.default_rng(0).random((1, 3, height, width), np.float32)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(turns):
        for name, session in sessions.items():
            session.run(images)
            start = time.process_time()
            for _ in range(runs):
                session.run(images)
            times[name].append((time.process_time() - start) / runs * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def row(stem: str, folder: Path, turns: int, runs: int) -> str:
    path = {name: folder / f"{stem}{name}" for name in (".xml", "-int8.xml", ".onnx", "-int8.onnx")}
    sessions: dict[str, Session] = {
        "float": OpenVinoSession(path[".xml"], CPU),
        "int8": OpenVinoSession(path["-int8.xml"], CPU),
        "ort float": OnnxRuntimeSession(path[".onnx"], CPU),
        "ort int8": OnnxRuntimeSession(path["-int8.onnx"], CPU),
    }
    if has_bfloat16():
        sessions["bf16"] = OpenVinoSession(path[".xml"], CPU, half=True)
    found = timed(sessions, turns, runs)
    reports = [sessions[name].metadata.int8 for name in ("int8", "ort int8")]
    quality_text = " | ".join(f"{100 * value:.2f}" for value in (reports[0]["float"], *(r["int8"] for r in reports)))
    order = ("float", "bf16", "int8", "ort float", "ort int8")
    times = " | ".join(f"{found[name]:.1f}" if name in found else "-" for name in order)
    (width, _) = sessions["int8"].metadata.size_wh
    return f"| {stem} | {width} | {quality_text} | {times} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs=3, action="append", required=True, metavar=("CFG", "WEIGHTS", "DATA"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--calib-images", type=int, default=CALIBRATION_IMAGES)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for cfg, weights, data in options.model:
        if not (options.out / f"{Path(cfg).stem}-int8.xml").exists():
            write(cfg, weights, data, options.out, options.calib_images)
    columns = ["model", "input", "mAP float", "OpenVINO int8", "ONNX Runtime int8"]
    columns += ["OpenVINO float ms", "bf16", "int8", "ONNX Runtime float ms", "int8"]
    torch.set_num_threads(1)
    print(table(columns))
    for cfg, _, _ in options.model:
        print(row(Path(cfg).stem, options.out, options.turns, options.runs), flush=True)


if __name__ == "__main__":
    main()

"""Detection on video, end to end, against the engine alone: what decoding, fitting and boxes cost beside each backend.

A clip is generated, the model is exported, and then the two take turns: a pass of detect.py's own loop over the clip
(--no-save), and as many runs of the bare engine on an image that is ready. What counts is the ratio within one run: of elapsed
time, and of processor time of all threads, which does not depend on what else the machine does. Take trained weights: random ones
find thousands of boxes, whose suppression then takes most of the time. The default is the shipped detector of blood cells.

  python benchmarks/backends.py --cfg yolov4-tiny.cfg --weights yolov4-tiny.weights
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


import detect
import export
from inference.backends import ExportedModel
from inference.model import open_model
from utils.cfg import read
from utils.letterbox import KERNELS
from utils.memory import keep_freed_memory

SUFFIXES = {"onnxruntime": ".onnx", "openvino": ".xml", "opencv": ".onnx", "torch": ".weights"}
DEFAULT = ROOT / "weights" / "csppeleenet-efm-bccd"


class Seconds(NamedTuple):
    """Of one pass. elapsed: by the clock. processor: of all threads."""

    elapsed: float
    processor: float


def timed(work: Callable[[], object]) -> Seconds:
    start, start_processor = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - start, time.process_time() - start_processor)


def write_clip(path: Path, frames: int, size_wh: tuple[int, int]) -> None:
    """Coloured discs that drift over a background of soft light, with a camera's noise."""
    width, height = size_wh
    generator = np.random.default_rng(0)
    ground = cv2.resize(generator.integers(150, 230, (3, 4, 3), np.uint8), size_wh, interpolation=cv2.INTER_CUBIC)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, size_wh)
    for number in range(frames):
        frame = ground.copy()
        for disc in range(8):
            centre = ((disc * 97 + number * (5 + disc)) % width, (disc * 61 + number * 3) % height)
            cv2.circle(frame, centre, 20 + 6 * disc, (30 * disc, 255 - 30 * disc, 90), -1)
        noise = generator.integers(0, 12, frame.shape, np.uint8)
        writer.write(cv2.subtract(frame, noise))
    writer.release()


def passes(backend: str, model: Path, cfg: Path, clip: Path, options: argparse.Namespace, folder: Path) -> str:
    """Medians of the turns as a row of a table."""
    frames = options.frames
    network = open_model(model, cfg=str(cfg) if backend == "torch" else None, backend=backend).network
    shape = network.plan.input
    images = torch.rand(1, shape.channels, shape.height, shape.width)

    def alone() -> None:
        with torch.inference_mode():
            for _ in range(frames):
                if isinstance(network, ExportedModel):
                    network.session.run(images.numpy())
                else:
                    network(images)

    flags = ["--weights", str(model), "--backend", backend, "--source", str(clip), "--no-save", "--conf-thres"]
    flags += [
        str(options.conf),
        "--resize",
        options.resize,
        "--project",
        str(folder / "runs"),
        *(["--cfg", str(cfg)] * (backend == "torch")),
    ]
    arguments = detect.parse_arguments(flags)
    detector = detect.open_the_model(arguments)

    def whole() -> float:
        with contextlib.closing(detect.open_frames(str(clip))) as source, contextlib.redirect_stderr(io.StringIO()):
            target = detect.run_folder(folder / "runs", "a", exist_ok=True)
            with detect.Recorder(target, detect.record_options(arguments, detector)) as recorder:
                found = detect.run(detector, source, recorder, arguments)
        return sum(found.objects.values()) / max(found.images, 1)

    found = whole()
    turns = [(timed(alone), timed(whole)) for _ in range(options.turns)]
    bare, full = (Seconds(*map(statistics.median, zip(*each, strict=True))) for each in zip(*turns, strict=True))
    ratio = Seconds(*(statistics.median(w[n] / a[n] for a, w in turns) for n in range(2)))
    return (
        f"| {backend} | {shape.width} | {found:.0f} | {bare.elapsed / frames * 1e3:.1f} "
        f"| {full.elapsed / frames * 1e3:.1f} | {ratio.elapsed:.2f} "
        f"| {bare.processor / frames * 1e3:.1f} | {full.processor / frames * 1e3:.1f} | {ratio.processor:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", default=str(DEFAULT.with_suffix(".cfg")))
    parser.add_argument("--weights", default=str(DEFAULT.with_suffix(".weights")))
    parser.add_argument("--backend", nargs="+", choices=SUFFIXES, default=["onnxruntime", "openvino"])
    parser.add_argument("--size", type=int, nargs=2, default=[1280, 720], help="of the clip, default 1280 720")
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--img-size", type=int, nargs="+", default=[320], help="of the network's input, default 320")
    parser.add_argument("--conf", type=float, default=0.25)
    parser.add_argument("--resize", choices=KERNELS, default=KERNELS[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    keep_freed_memory()  # as detect.py does
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = folder / "clip.mp4"
        write_clip(clip, options.frames, tuple(options.size))
        print(
            "| backend | input | boxes | engine ms | end to end ms | ratio | engine CPU ms | end to end CPU ms | ratio |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for size in options.img_size:
            weights = folder / f"{size}.weights"
            weights.write_bytes(Path(options.weights).read_bytes())
            cfg = weights.with_suffix(".cfg")
            read(options.cfg).with_values(0, {"width": size, "height": size}).write(cfg)
            export_models(cfg, weights, options.backend)
            for backend in options.backend:
                model = weights.with_suffix(SUFFIXES[backend])
                print(passes(backend, model, cfg, clip, options, folder), flush=True)


def export_models(cfg: Path, weights: Path, backends: list[str]) -> None:
    """What the backends run, beside the weights."""
    kinds = {"onnx": ".onnx", "openvino": ".xml"}
    wanted = [kind for kind, suffix in kinds.items() if any(SUFFIXES[each] == suffix for each in backends)]
    if wanted:
        source = ["--cfg", str(cfg), "--weights", str(weights), "--out", str(weights.with_suffix(""))]
        with contextlib.redirect_stdout(io.StringIO()):
            export.main([*source, "--include", *wanted, "--no-check"])


if __name__ == "__main__":
    main()

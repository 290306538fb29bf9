"""Compare all engines: time and memory of forward passes, and detection end to end.

All engines get the same cfg and weights (exported where necessary), the same input and the same number of threads. Each runs in
its own process. They take turns within a run, so that ratios hold if the machine's speed drifts, and all except the one being
timed are stopped: idle threads that spin would slow the others down up to ten times. Engines that are not installed are
skipped. OpenCV 4.x needs an environment of its own, and the original has to be built with AVX=1 and OPENMP=1:

  python3 -m venv /somewhere/cv4 && /somewhere/cv4/bin/pip install "opencv-python-headless<5"
  python benchmarks/inference.py --opencv-python /somewhere/cv4/bin/python --darknet /somewhere/darknet/darknet
  python benchmarks/inference.py --cfg csppeleenet-efm --img-size 224 320 416 512 608 --batch-size 1 4 8
  python benchmarks/inference.py --end-to-end
  python benchmarks/inference.py --check benchmarks/inference.json

--end-to-end compares the loop of detect.py (--no-save), on a generated video and on a folder of JPEG files, with the bare engine
on a prepared image. It uses trained weights: random ones find thousands of boxes, and NMS would take most of the time.
--check exits with code 1 if a ratio (to ONNX Runtime, or of end-to-end detection to the bare engine) is worse than the stored one
by more than its tolerance; --save stores the ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import detect
from benchmarks.common import ROOT, cfg_path, table
from data.frames import open_frames
from inference.model import open_model
from models.export.build import ExportOptions
from models.export.onnx import save_onnx
from models.fit import classes_of
from models.load import load
from models.plan import read_plan
from models.weights import save_weights
from profiling.timing import settle_statistics
from utils.cfg import read
from utils.cli import StopRequest
from utils.errors import InputError
from utils.files import write_text
from utils.memory import keep_freed_memory

MODELS = {
    "yolov3-tiny-prn": 416,
    "cspdensenetb-ref-prn": 320,
    "csppeleenet-ref-prn3l": 320,
    "csppeleenet-efm": 416,
    "vovnet27-slim": 224,
    "csresnext50-panet-spp": 416,
}
# Engine -> column heading, --backend, --half.
OURS = {
    "torch": ("PyTorch", "torch", False),
    "onnxruntime": ("ONNX Runtime", "onnxruntime", False),
    "openvino": ("OpenVINO", "openvino", False),
    "openvino-bf16": ("OpenVINO bf16", "openvino", True),
}
OTHERS = {"opencv": "OpenCV 4", "darknet": "original"}
HEADINGS = {name: heading for name, (heading, _, _) in OURS.items()} | OTHERS
YARDSTICK = "onnxruntime"  # reference of all ratios: the fastest engine that is independent of this project
TRAINED = ROOT / "weights" / "csppeleenet-efm-bccd"
TOLERANCE = 0.15


Row = dict[str, float]  # by engine


class Network(NamedTuple):
    """A network to measure: a cfg with `side` as width and height, and its ONNX export for OpenCV with this batch size."""

    name: str
    side: int
    batch: int
    cfg: Path
    weights: Path

    @property
    def onnx(self) -> Path:
        return self.weights.with_suffix(".onnx")

    @property
    def label(self) -> str:
        return f"{self.name} {self.side}" + (f" batch {self.batch}" if self.batch > 1 else "")


class Engine:
    """An engine in its own process, which is stopped except while it answers.

    problem: why it cannot run the network; empty if it can.
    """

    def __init__(self, command: Sequence[str], threads: int, folder: Path | None = None) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            cwd=folder,
        )
        self.problem = ""

    def ask(self, *words: object) -> str:
        """The answer to a command; empty if the process has ended."""
        if os.name == "posix":
            self._process.send_signal(signal.SIGCONT)
        try:
            return self._answer("\t".join(map(str, words)))
        except BrokenPipeError:
            return ""
        finally:
            if os.name == "posix":
                self._process.send_signal(signal.SIGSTOP)

    def load(self, *words: object) -> None:
        answer = self.ask("load", *words)
        self.problem = "" if answer == "ok" else answer or "its process ended"

    def seconds(self, passes: int) -> float:
        """Median seconds of `passes` passes, after a first one that warms up caches and threads."""
        return statistics.median([float(each) for each in self.ask("run", passes + 1).split()][1:])

    def peak_mib(self) -> float | None:
        """Peak resident memory of the process so far; None if the system does not report it."""
        status = Path(f"/proc/{self._process.pid}/status")
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.is_file() else None
        return int(found[1]) / 1024 if found else None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answer(self, command: str) -> str:
        self._write(command)
        return self._read()

    def _write(self, line: str) -> None:
        assert self._process.stdin
        print(line, file=self._process.stdin, flush=True)

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


class Darknet(Engine):
    """The original program, which times its own passes; it is given the same image repeatedly."""

    def __init__(self, binary: Path, network: Network, threads: int, folder: Path) -> None:
        plan = read_plan(network.cfg)
        self._image = folder / "image.png"
        cv2.imwrite(str(self._image), np.zeros((network.side, network.side, 3), np.uint8))
        names, data = folder / "a.names", folder / "a.data"
        names.write_text("".join(f"{number}\n" for number in range(10_000)))
        data.write_text(f"classes={classes_of(plan)}\nnames={names}\nlabels={names}\n")
        letters = binary.resolve().parent / "data"  # it draws labels with these files
        if letters.is_dir() and not (folder / "data").exists():
            (folder / "data").symlink_to(letters)
        task = ["detector", "test"] if plan.box_heads else ["classifier", "predict"]
        flags = ["-dont_show", "-thresh", "1"] if plan.box_heads else []
        command = [binary.resolve(), *task, data, network.cfg, network.weights, *flags]
        super().__init__([str(each) for each in command], threads, folder)
        if not self.ask("run", 1):
            self.problem = "its process ended"

    def _answer(self, command: str) -> str:
        seconds = []
        for _ in range(int(command.split("\t")[1])):
            self._write(str(self._image))
            while not (found := re.search(r"Predicted in ([\d.]+) milli-seconds", line := self._read())):
                if self._process.poll() is not None and not line:
                    return ""
            seconds.append(float(found[1]) / 1e3)
        return " ".join(map(str, seconds))


def opencv_engine(python: str, threads: int) -> Engine:
    """OpenCV in another Python environment; it understands all commands of benchmarks/opencv_worker.py."""
    return Engine([python, str(ROOT / "benchmarks" / "opencv_worker.py")], threads)


def engine_of(name: str, network: Network, options: argparse.Namespace, folder: Path) -> Engine:
    """Start an engine and load the network; if that fails, the engine has a `problem`."""
    if name == "darknet":
        return Darknet(options.darknet, network, options.threads, folder)
    if name == "opencv":
        engine = opencv_engine(options.opencv_python, options.threads)
        words: tuple[object, ...] = (network.onnx, network.side, network.batch, options.threads)
    else:
        engine = Engine([sys.executable, __file__, "--worker"], options.threads)
        words = (name, network.cfg, network.weights, network.batch, options.threads)
    engine.load(*words)
    return engine


class Worker:
    """The process of our engines: holds the model between commands, like benchmarks/opencv_worker.py."""

    def load(self, engine: str, cfg: str, weights: str, batch: str, threads: str) -> str:
        torch.set_num_threads(int(threads))
        _, backend, half = OURS[engine]
        self._flags = ["--cfg", cfg, "--weights", weights, "--backend", backend, *["--half"] * half]
        self._model = open_model(weights, cfg=cfg, backend=backend, half=half, device="cpu")
        shape = self._model.network.plan.input
        self._images = torch.rand(int(batch), shape.channels, shape.height, shape.width)
        self.run("1")
        return "ok"

    def run(self, passes: str) -> str:
        """Make forward passes; returns the seconds of each."""
        seconds = []
        with torch.inference_mode():
            for _ in range(int(passes)):
                start = time.perf_counter()
                self._model.network(self._images)
                seconds.append(time.perf_counter() - start)
        return " ".join(map(str, seconds))

    def detect(self, source: str) -> str:
        """Run the loop of detect.py --no-save over the source; returns seconds per image and boxes per image."""
        arguments = detect.parse_arguments([*self._flags, "--source", source, "--no-save"])
        start = time.perf_counter()
        with contextlib.closing(open_frames(source)) as frames, detect.Recorder(Path(), arguments) as recorder:
            found = detect.run(self._model, frames, recorder, arguments, None, StopRequest())
        seconds = time.perf_counter() - start
        return f"{seconds / found.images} {sum(found.objects.values()) / found.images}"

    def serve(self) -> None:
        keep_freed_memory()  # like detect.py
        commands: dict[str, Callable[..., str]] = {"load": self.load, "run": self.run, "detect": self.detect}
        answers = os.fdopen(os.dup(1), "w")
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            for line in sys.stdin:
                command, *words = line.rstrip("\n").split("\t")
                try:
                    answer = commands[command](*words)
                except InputError as error:
                    answer = str(error)
                print(answer, file=answers, flush=True)


def prepared(name: str, side: int, batch: int, folder: Path, *, onnx: bool) -> Network:
    """Write a cfg of this size and random weights that keep activations in a plausible range; onnx: export it too."""
    cfg = cfg_path(name)
    network = settle_statistics(load(cfg, width=side, height=side))
    sized = folder / "a.cfg"
    network.plan.cfg.with_values(0, {"width": side, "height": side, "batch": 1, "subdivisions": 1}).write(sized)
    save_weights(network, sized.with_suffix(".weights"))
    made = Network(cfg.stem, side, batch, sized, sized.with_suffix(".weights"))
    if onnx:
        save_onnx(network.fold(), made.onnx, ExportOptions(outputs="raw", batch=batch))
    return made


def forward_passes(network: Network, options: argparse.Namespace, folder: Path) -> tuple[Row, Row]:
    """Milliseconds per pass in the fastest turn and peak memory in MiB of each engine. Other programs only slow turns down."""
    engines = {name: engine_of(name, network, options, folder) for name in options.engine}
    try:
        for name, engine in engines.items():
            if engine.problem:
                print(f"{network.label}: {HEADINGS[name]} cannot run it: {engine.problem}", file=sys.stderr)
        able = {name: engine for name, engine in engines.items() if not engine.problem}
        turns = [{name: engine.seconds(options.passes) for name, engine in able.items()} for _ in range(options.turns)]
        times = {name: 1e3 * min(turn[name] for turn in turns) for name in able}
        memory = {name: peak for name, engine in able.items() if (peak := engine.peak_mib()) is not None}
        return times, memory
    finally:
        for engine in engines.values():
            engine.close()


def end_to_end(name: str, network: Network, source: Path, options: argparse.Namespace) -> dict[str, float]:
    """Per image: milliseconds of the engine alone and of detect.py, their ratio (median over turns), and boxes."""
    alone, whole = (engine_of(name, network, options, source.parent) for _ in range(2))
    try:
        if alone.problem:
            raise SystemExit(f"{HEADINGS[name]}: {alone.problem}")
        whole.ask("detect", source)
        turns = []
        for _ in range(options.turns):
            bare = alone.seconds(options.frames)
            seconds, boxes = map(float, whole.ask("detect", source).split())
            turns.append((1e3 * bare, 1e3 * seconds, seconds / bare, boxes))
        return dict(
            zip(("engine", "whole", "ratio", "boxes"), map(statistics.median, zip(*turns, strict=True)), strict=True)
        )
    finally:
        alone.close()
        whole.close()


def write_sources(folder: Path, frames: int, size_wh: tuple[int, int]) -> dict[str, Path]:
    """Write the same frames as a video and as JPEG files: discs drifting over a soft gradient, with camera noise."""
    width, height = size_wh
    generator = np.random.default_rng(0)
    ground = cv2.resize(generator.integers(150, 230, (3, 4, 3), np.uint8), size_wh, interpolation=cv2.INTER_CUBIC)
    sources = {"video": folder / "clip.mp4", "JPEG files": folder / "images"}
    sources["JPEG files"].mkdir()
    writer = cv2.VideoWriter(str(sources["video"]), cv2.VideoWriter.fourcc(*"mp4v"), 25, size_wh)
    for number in range(frames):
        frame = ground.copy()
        for disc in range(8):
            centre = ((disc * 97 + number * (5 + disc)) % width, (disc * 61 + number * 3) % height)
            cv2.circle(frame, centre, 20 + 6 * disc, (30 * disc, 255 - 30 * disc, 90), -1)
        frame = cv2.subtract(frame, generator.integers(0, 12, frame.shape, np.uint8))
        writer.write(frame)
        cv2.imwrite(str(sources["JPEG files"] / f"{number:04}.jpg"), frame)
    writer.release()
    return sources


def engine_table(heading: str, columns: Sequence[str], rows: dict[str, Row]) -> str:
    """A Markdown table: a row for each entry, a column for each engine that occurs in any of them."""
    cells = (
        [label, *(f"{row[each]:.{1 if row[each] < 100 else 0}f}" if each in row else "-" for each in columns)]
        for label, row in rows.items()
    )
    return table((heading, *(HEADINGS[each] for each in columns)), cells)


def worse(ratios: dict[str, Row], stored: dict[str, Row], tolerance: float) -> list[str]:
    """A sentence for each ratio that is worse than the stored one."""
    return [
        f"{label}, {name}: ratio {ratios[label][name]:.2f}, stored {value:.2f} (tolerance {tolerance:.0%})"
        for label, row in stored.items()
        for name, value in row.items()
        if name in ratios.get(label, {}) and ratios[label][name] > value * (1 + tolerance)
    ]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cfg", nargs="+", help="cfg files, or names of files in cfg/; default: six models at their usual sizes"
    )
    parser.add_argument("--img-size", type=int, nargs="+", help="input sizes (default: 416 with --cfg)")
    parser.add_argument("--batch-size", "--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--engine", nargs="+", choices=HEADINGS, help="default: all that are available")
    parser.add_argument("--opencv-python", help="Python of an environment with OpenCV 4.x")
    parser.add_argument("--darknet", type=Path, help="the original's binary")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--turns", type=int, default=7, help="turns of each engine (default 7)")
    parser.add_argument("--passes", type=int, default=5, help="passes per turn, of which the median counts (default 5)")
    parser.add_argument(
        "--end-to-end", action="store_true", help="measure detect.py on a video and on files instead of forward passes"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        default=TRAINED.with_suffix(".weights"),
        help="weights for --end-to-end, next to their .cfg",
    )
    parser.add_argument("--size", type=int, nargs=2, default=[1280, 720], help="size of the video (default 1280 720)")
    parser.add_argument("--frames", type=int, default=60, help="frames of the video (default 60)")
    parser.add_argument("--save", type=Path, metavar="FILE", help="store the ratios in a JSON file")
    parser.add_argument("--check", type=Path, metavar="FILE", help="compare the ratios with those in the file")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    given = {"opencv": options.opencv_python, "darknet": options.darknet}
    present = [name for name in OURS if name == "torch" or find_spec(OURS[name][1])]
    present += [name for name in OTHERS if given[name]]
    for name in options.engine or ():
        if name not in present:
            parser.error(f"--engine {name}: is not installed, or --opencv-python or --darknet is missing")
    options.engine = options.engine or present
    return options


def main() -> int:
    options = parse_arguments()
    if options.worker:
        Worker().serve()
        return 0
    with tempfile.TemporaryDirectory() as name:
        ratios = (end_to_end_table if options.end_to_end else forward_tables)(options, Path(name))
    if options.save:
        new = not options.save.is_file()
        stored: Any = {"tolerance": TOLERANCE, "ratios": {}} if new else json.loads(options.save.read_text())
        for label, row in ratios.items():
            stored["ratios"][label] = {name: round(value, 3) for name, value in row.items()}
        write_text(options.save, json.dumps(stored, indent=1) + "\n")
    if not options.check:
        return 0
    stored = json.loads(options.check.read_text())
    common = sum(name in ratios.get(label, {}) for label, row in stored["ratios"].items() for name in row)
    found = worse(ratios, stored["ratios"], stored["tolerance"])
    print(*found, f"{common} ratios compared with {options.check}: {len(found)} worse", sep="\n")
    return 1 if found or not common else 0


def forward_tables(options: argparse.Namespace, folder: Path) -> dict[str, Row]:
    """Print times and memory; returns the ratios to YARDSTICK."""
    names = {name: options.img_size or [416] for name in options.cfg} if options.cfg else {}
    sides = names or {name: options.img_size or [side] for name, side in MODELS.items()}
    times, memory = dict[str, Row](), dict[str, Row]()
    for name in sides:
        for side in sides[name]:
            for batch in options.batch_size:
                network = prepared(name, side, batch, folder, onnx="opencv" in options.engine)
                times[network.label], memory[network.label] = forward_passes(network, options, folder)
                row = {network.label: times[network.label]}
                print(engine_table("ms", options.engine, row).splitlines()[-1], file=sys.stderr)
    print(engine_table("ms per pass", options.engine, times), end="\n\n")
    print(engine_table("peak memory, MiB", options.engine, memory), end="\n\n")
    return {
        label: {name: value / row[YARDSTICK] for name, value in row.items() if name in OURS and name != YARDSTICK}
        for label, row in times.items()
        if YARDSTICK in row
    }


def end_to_end_table(options: argparse.Namespace, folder: Path) -> dict[str, Row]:
    """Print the cost of detection compared with each bare engine; returns the ratios."""
    ratios: dict[str, Row] = {}
    print(table(("source", "input", "engine", "engine alone, ms", "end to end, ms", "ratio", "boxes")))
    sources = write_sources(folder, options.frames, tuple(options.size))
    for side in options.img_size or [416]:
        cfg = folder / "a.cfg"
        read(options.weights.with_suffix(".cfg")).with_values(0, {"width": side, "height": side}).write(cfg)
        network = Network(options.weights.stem, side, 1, cfg, options.weights.resolve())
        for kind, source in sources.items():
            for name in (each for each in options.engine if each in OURS):
                row = end_to_end(name, network, source, options)
                cells = f"{row['engine']:.1f} | {row['whole']:.1f} | {row['ratio']:.2f} | {row['boxes']:.0f}"
                print(f"| {kind} | {side} | {HEADINGS[name]} | {cells} |", flush=True)
                ratios.setdefault(f"{network.label} {kind}", {})[name] = row["ratio"]
    return ratios


if __name__ == "__main__":
    sys.exit(main())

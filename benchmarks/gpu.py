"""Report correctness and speed on a GPU.

  python -m benchmarks.gpu --out report.md
  python -m benchmarks.gpu --out report.md --darknet /somewhere/darknet      compare with the original's CUDA build
  python -m benchmarks.gpu --out report.md --device cpu --minutes 1         a dry run

Needs the repository and requirements-dev.txt. It ends after --minutes (default 9) and lists what it had no time for. The report
is written after every section, so an interrupted run leaves one too.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.common import ROOT, cfg_path, table
from compose.published import TABLE_5
from data.frames import frames_of
from inference.cuda import captured
from inference.model import AUTO, open_model
from inference.pipeline import predict_frames
from inference.predictor import NmsOptions, RunStatistics
from models.network import Network
from models.plan import Plan, read_plan
from models.weights import save_weights
from profiling.timing import forward_pass, settle_statistics
from utils.device import select_device
from utils.files import write_text

BATCHES = (1, 8, 32)
FIRST = (
    "csresnext50-panet-spp",
    "yolov3-tiny-prn",
    "csppeleenet-efm",
    *(row.model for row in TABLE_5.rows if row.model),
)
GOALS = (
    "at least 40 % of the measured bf16 peak for csresnext50-panet-spp at batch 32; at most 2 ms for yolov3-tiny-prn"
)
LEAST_S, RUNS = 0.15, 3  # minimum seconds and passes of a measurement
CLIP = ROOT / "data" / "samples" / "scenes.mp4"


class Report:
    """A Markdown report, written to `path` after every section, until time `end` (of time.monotonic)."""

    def __init__(self, path: Path, end: float) -> None:
        self._path, self._end, self._lines = path, end, list[str]()

    @property
    def seconds_left(self) -> float:
        return self._end - time.monotonic()

    def add(self, *lines: str) -> None:
        self._lines += lines
        write_text(self._path, "\n".join(self._lines) + "\n")
        print("\n".join(lines), flush=True)

    def section(self, title: str, needs: float, make: Callable[[], None]) -> None:
        """Run a section if at least `needs` seconds are left. If it fails, report that and continue with the next one."""
        self.add("", f"## {title}", "")
        if self.seconds_left < needs:
            self.add("Not run: no time was left.")
            return
        try:
            make()
        except Exception as error:  # anything can fail on a new device; the other sections must still run
            self.add(f"Failed: {type(error).__name__}: {error}")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("report.md"), metavar="FILE")
    parser.add_argument("--minutes", type=float, default=9.0, help="time limit (default 9)")
    parser.add_argument("--device", default="", help='default: a GPU if there is one; "cpu" for a dry run')
    parser.add_argument("--cfg", nargs="+", help="names of files in cfg/; default: all detectors")
    parser.add_argument("--darknet", help="binary of the original, built with GPU=1 CUDNN=1")
    parser.add_argument("--no-tests", action="store_true", help="skip the tests")
    return parser.parse_args(arguments)


def environment(report: Report, device: torch.device) -> None:
    report.add(f"PyTorch {torch.__version__}, Python {platform.python_version()}, {os.cpu_count()} processor cores")
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        memory = found.total_memory / 2**30
        report.add(
            f"{found.name}, compute capability {found.major}.{found.minor}, {found.multi_processor_count} multiprocessors, "
            f"{memory:.0f} GiB; CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        )
    else:
        report.add("**Dry run on a CPU.** None of these figures is a GPU's.")


def tests(report: Report) -> None:
    limit = min(report.seconds_left / 3, 200)
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "tests/test_gpu.py"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        report.add(f"`pytest -m gpu` did not end within {limit:.0f} s.")
        return
    lines = [line for line in done.stdout.splitlines() if re.match(r"FAILED|ERROR|E  |\d+ |=+ .*(passed|failed)", line)]
    report.add(f"`pytest -m gpu` ended with {done.returncode}:", "", "```", *lines[-60:], "```")


def detectors(chosen: list[str] | None) -> list[str]:
    """Names of cfgs with boxes, those of the papers first."""
    names = chosen or [*FIRST, *sorted(path.stem for path in (ROOT / "cfg").glob("*.cfg"))]
    return [name for name in dict.fromkeys(names) if read_plan(cfg_path(name)).box_heads]


@contextlib.contextmanager
def precision(name: str) -> Iterator[torch.dtype]:
    """Set up "fp32", "tf32", "fp16" or "bf16"; yields the data type of weights and images."""
    backends: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [each.allow_tf32 for each in backends]
    try:
        for each in backends:
            each.allow_tf32 = name == "tf32"
        yield {"fp16": torch.float16, "bf16": torch.bfloat16}.get(name, torch.float32)
    finally:
        for each, value in zip(backends, before, strict=True):
            each.allow_tf32 = value


@torch.inference_mode()
def seconds_of(plan: Plan, batch: int, kind: str, device: torch.device, *, graphed: bool = True) -> float:
    """Minimum seconds of a forward pass."""
    with precision(kind) as dtype:
        network = settle_statistics(Network(plan)).to(device).fold()
        shape = plan.input
        images = torch.rand(batch, shape.channels, shape.height, shape.width, device=device)
        if dtype != torch.float32:
            network, images = network.to(dtype), images.to(dtype)
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as in Network.fold
        run = captured(network, images) if graphed and device.type == "cuda" else network
        return least_seconds(forward_pass(run, images))


def least_seconds(forward: Callable[[], None]) -> float:
    """Minimum over at least RUNS passes and LEAST_S seconds, after a warm-up pass."""
    forward()
    seconds, end = list[float](), time.perf_counter() + LEAST_S
    while len(seconds) < RUNS or time.perf_counter() < end:
        start = time.perf_counter()
        forward()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def speeds(report: Report, device: torch.device, names: list[str], reserve: float) -> None:
    """Images per second of every detector, until `reserve` seconds are left."""
    on_gpu = device.type == "cuda"
    kinds = ("fp32", "tf32", "fp16") if on_gpu else ("fp32",)
    paper = {row.model: row.figures[0] for row in TABLE_5.rows if row.model}
    columns = [f"{kind} x {batch}" for kind in kinds for batch in BATCHES]
    report.add("Images per second by precision and batch, the network alone. The last column is the papers'.", "")
    head = ["model", "input", "BFLOPs", "ms, fp32 x 1, no graph", *columns, "GTX 1080 Ti"]
    report.add(table(head))
    left_out = []
    for name in names:
        if report.seconds_left < reserve:
            left_out.append(name)
            continue
        plan = read_plan(cfg_path(name))
        work = sum(step.cost.operations for step in plan.steps) / 1e9
        cells = [f"{1e3 * seconds_of(plan, 1, 'fp32', device, graphed=False):.2f}"]
        for kind in kinds:
            for batch in BATCHES:
                try:
                    cells.append(f"{batch / seconds_of(plan, batch, kind, device):,.0f}")
                except RuntimeError as error:  # out of memory, or no CUDA graph
                    cells.append("no memory" if isinstance(error, torch.OutOfMemoryError) else "failed")
                if report.seconds_left < reserve:
                    break
        cells += ["-"] * (1 + len(columns) - len(cells))
        size = f"{plan.input.width} x {plan.input.height}"
        report.add(f"| {name} | {size} | {work:.2f} | {' | '.join(cells)} | {paper.get(name, '-')} |")
    if left_out:
        report.add("", f"No time was left for {', '.join(left_out)}.")


@torch.inference_mode()
def peak(report: Report, device: torch.device) -> None:
    """Fraction of the device's peak arithmetic throughput that a large network reaches."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.rand(side, side, device=device).to(torch.bfloat16) for _ in range(2))
    best = 2 * side**3 / least_seconds(forward_pass(lambda x: x @ b, a)) / 1e12
    report.add(f"A product of two bf16 matrices of {side} x {side}: {best:.1f} TFLOP/s.", "")
    wanted = (("csresnext50-panet-spp", 32), ("yolov3-tiny-prn", 1))
    for name, batch in wanted if device.type == "cuda" else wanted[1:]:
        plan = read_plan(cfg_path(name))
        seconds = seconds_of(plan, batch, "bf16", device)
        used = sum(step.cost.operations for step in plan.steps) * batch / seconds / 1e12
        text = f"{1e3 * seconds:.2f} ms, {used:.2f} TFLOP/s, {100 * used / best:.0f} % of that"
        report.add(f"- {name} in bf16 at batch {batch}: {text}")
    report.add("", f"Goals: {GOALS}.")


def end_to_end(report: Report, device: torch.device, folder: Path) -> None:
    """Speed from video file to boxes, for the shipped detector and a network from the papers."""
    report.add(table(("model", "backend", "images/s", "waiting", "preprocess", "inference", "postprocess")))
    shipped = (ROOT / "weights" / "scenes.cfg", ROOT / "weights" / "scenes.weights")
    other = cfg_path("yolov3-tiny-prn")
    weights = folder / "prn.weights"
    save_weights(settle_statistics(Network(read_plan(other))), weights)
    for cfg, file in (shipped, (other, weights)):
        for half in (False, True) if device.type == "cuda" else (False,):
            model = open_model(file, cfg=cfg, device=device, backend=AUTO, half=half)
            statistics = RunStatistics()
            start = time.perf_counter()
            clips = [str(CLIP)] * (8 if device.type == "cuda" else 1)
            with contextlib.closing(frames_of(clips, "clip")) as frames:
                for _ in predict_frames(model, frames, NmsOptions(), statistics=statistics):
                    pass
            speed = statistics.images / (time.perf_counter() - start)
            stages = " | ".join(f"{value:.2f} ms" for value in statistics.milliseconds().values())
            report.add(f"| {cfg.stem} | {'fp16' if half else 'fp32'} | {speed:.0f} | {stages} |")


def training(report: Report, device: torch.device) -> None:
    """Images per second in training, and of the loader alone."""
    workers = max(1, min(16, os.cpu_count() or 1))
    small = ["--img-size", "96", "--batch-size", "2", "--workers", "1", "--turns", "1", "--batches", "4"]
    full = ["--img-size", "416", "--batch-size", "64", "--workers", str(workers), "--turns", "1"]
    for amp in ([], ["--amp", "bf16"]) if device.type == "cuda" else ([],):
        flags = [*(full if device.type == "cuda" else small), *amp]
        command = [sys.executable, str(ROOT / "benchmarks" / "loader.py"), *flags]
        limit = max(10.0, min(report.seconds_left - 10, 90))
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        output = (done.stdout if done.returncode == 0 else done.stderr).strip()
        report.add(f"`benchmarks/loader.py {' '.join(flags)}`:", "", "```", *output.splitlines()[-12:], "```", "")


def original(report: Report, binary: str, folder: Path) -> None:
    """The original's times for two networks."""
    image = next((ROOT / "data" / "samples").glob("*.jpg"))
    (folder / "my.names").write_text("".join(f"{number}\n" for number in range(80)))
    (folder / "my.data").write_text(f"classes=80\nnames={folder / 'my.names'}\n")
    for name in ("yolov3-tiny-prn", "csresnext50-panet-spp"):
        cfg = cfg_path(name)
        save_weights(settle_statistics(Network(read_plan(cfg))), folder / f"{name}.weights")
        command = [binary, "detector", "test", str(folder / "my.data"), str(cfg), str(folder / f"{name}.weights")]
        given = f"{image}\n" * 10
        done = subprocess.run(
            [*command, "-dont_show"], cwd=folder, input=given, capture_output=True, text=True, timeout=60, check=False
        )
        times = [float(each) for each in re.findall(r"Predicted in ([\d.]+) milli", done.stdout)]
        report.add(f"- {name} at batch 1: {min(times):.2f} ms" if times else f"- {name}: {done.stderr[-300:]}")


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    device = select_device(options.device)
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="cspyolo-gpu-") as name:
        folder, report = Path(name), Report(options.out, end)
        report.add(f"# cspyolo on {torch.cuda.get_device_name(device) if device.type == 'cuda' else 'a processor'}", "")
        environment(report, device)
        if not options.no_tests:
            report.section("Correctness", 20, lambda: tests(report))
        names = detectors(options.cfg)
        report.section("Share of the peak", 15, lambda: peak(report, device))
        report.section("Detection from file to boxes", 10, lambda: end_to_end(report, device, folder))
        report.section("Training", 20, lambda: training(report, device))
        if options.darknet:
            report.section("The original", 20, lambda: original(report, options.darknet, folder))
        report.section("Speed of the networks", 5, lambda: speeds(report, device, names, 5))
    print(f"\nReport saved to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

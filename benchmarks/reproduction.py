"""Reproduce the papers on a small scale: train their backbones and heads with one recipe on generated images.

Classifiers learn 24 classes of shapes (benchmarks/shapes.py), those of VoVNet's CIFAR-10 study ten classes at 32 x 32. Detectors
start from the CSPPeleeNet of the same seed and learn generated scenes (data/scenes). All nets of a task see the same number of
images and are trained by train.py; results are those of the last iteration. OUT/results.json and OUT/results.md are written after
each training run, and an interrupted reproduction continues where it stopped. --full is for a GPU.

  python -m benchmarks.reproduction --out runs/reproduction
  python -m benchmarks.reproduction --out runs/reproduction-full --full
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import train
from benchmarks.common import table
from benchmarks.shapes import CLASSES, TEN_CLASSES, make_cifar, make_shapes
from compose.backbones import BACKBONES, densenet
from compose.heads import HEADS
from compose.heads.yolo import classifier
from compose.net import Backbone, Net, Section, Value, write_sections
from data.scenes import NAMES, make_scenes
from models.fit import fit_classes, read_plan_to_fit
from models.plan import make_plan
from models.summary import totals
from training.recipe import HEAD_KEYS
from utils.cli import EXIT_INTERRUPTED, EXIT_OK, above_zero, run_script, script_parser
from utils.errors import InputError, RunError
from utils.files import read_text, write_text

START = "csppeleenet"
"""The classifier whose backbone detectors start from."""
K24, K34 = "densenet-3-4-8-6-k24", "densenet-6-8-8-8-k34"
PELEE_LIKE = partial(densenet.densenet, layers=(3, 4, 8, 6), growth=24)
VOVNET_LIKE = partial(densenet.densenet, layers=(6, 8, 8, 8), growth=34)
OWN = {
    K24: Backbone("DenseNet with PeleeNet's layers, k = 24", "derived", PELEE_LIKE),
    K34: Backbone("DenseNet with DenseNet-67's layers, k = 34", "derived", VOVNET_LIKE),
}
"""DenseNets with about the cost of PeleeNet and of VoVNet-27-slim."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One recipe for several nets.

    classes: names of the classes.
    printed: the papers' accuracy or AP of each net.
    compared: pairs of nets, and the printed difference.
    drawn: number of training images per class, or of scenes.
    images: number of images that each net sees.
    rate: maximum learning rate.
    metric: column of results.csv.
    """

    classes: Sequence[str]
    printed: Mapping[str, float | None]
    compared: Sequence[tuple[str, str, str]]
    side: int
    drawn: int
    images: int
    batch: int
    rate: float
    metric: str

    @property
    def iterations(self) -> int:
        return max(2, self.images // self.batch)


SHAPES = Task(
    classes=CLASSES,
    printed={
        "peleenet": 70.7,
        "csppeleenet-g25": 71.5,
        "csppeleenet": 70.9,
        "csppeleenet-g75": 70.4,
        "csppeleenet-first-g50": 69.2,
        "csppeleenet-last-g50": 70.6,
        K24: None,
        "vovnet27-slim": None,
        K34: None,
    },
    compared=(
        ("csppeleenet", "peleenet", "+0.2 top-1"),
        ("csppeleenet-g25", "csppeleenet", "+0.6 top-1"),
        ("csppeleenet", "csppeleenet-g75", "+0.5 top-1"),
        ("csppeleenet", "csppeleenet-last-g50", "+0.3 top-1"),
        ("csppeleenet-last-g50", "csppeleenet-first-g50", "+1.4 top-1"),
        ("peleenet", "csppeleenet-first-g50", "+1.5 top-1"),
        ("peleenet", K24, "+ (PeleeNet's paper)"),
        ("vovnet27-slim", K34, "+1.2 mAP (DSOD, DenseNet-67)"),
    ),
    side=64,
    drawn=100,
    images=7_200,
    batch=16,
    rate=0.002,
    metric="top1",
)
CIFAR = Task(
    classes=TEN_CLASSES,
    printed={"densenet40": 94.76, "densenet40-osa": 94.56, "densenet40-osa-12x20": 93.6},
    compared=(
        ("densenet40", "densenet40-osa", "+0.2 accuracy"),
        ("densenet40-osa", "densenet40-osa-12x20", "+1.0 accuracy"),
        ("densenet40", "densenet40-osa-12x20", "+1.2 accuracy"),
    ),
    side=32,
    drawn=100,
    images=3_600,
    batch=16,
    rate=0.002,
    metric="top1",
)
SCENES = Task(
    classes=NAMES,
    printed={"prn": 23.1, "gfm": 24.3, "efm-plain": 26.4, "efm": 26.8},
    compared=(("gfm", "prn", "+1.2 AP"), ("efm-plain", "gfm", "+2.1 AP"), ("efm", "efm-plain", "+0.4 AP")),
    side=96,
    drawn=600,
    images=7_200,
    batch=8,
    rate=0.002,
    metric="AP",
)
SMALL = {"shapes": SHAPES, "cifar": CIFAR, "scenes": SCENES}
FULL = {
    "shapes": dataclasses.replace(SHAPES, side=96, drawn=1000, images=640_000, batch=64),
    "cifar": dataclasses.replace(CIFAR, drawn=5_000, images=640_000, batch=64),
    "scenes": dataclasses.replace(SCENES, side=320, drawn=8_000, images=160_000, batch=32),
}
SMALL_SEEDS, FULL_SEEDS = 3, 5
VALIDATED = 60
"""Validation images per class."""
T95 = (
    12.71,
    4.30,
    3.18,
    2.78,
    2.57,
    2.45,
    2.36,
    2.31,
    2.26,
    2.23,
    2.20,
    2.18,
    2.16,
    2.14,
    2.13,
    2.12,
    2.11,
    2.10,
    2.09,
)
"""Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A training; figure: result in percent; seconds: processor time, since it was resumed if it had been stopped."""

    task: str
    net: str
    seed: int
    figure: float
    seconds: float


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = script_parser("python -m benchmarks.reproduction", __doc__)
    add = parser.add_argument
    add(
        "--out",
        type=Path,
        default=Path("runs/reproduction"),
        metavar="DIR",
        help="output folder (default %(default)s)",
    )
    add("--full", action="store_true", help="for a GPU: larger images, longer training, more seeds")
    add(
        "--seeds", type=above_zero, metavar="N", help=f"seeds per net (default {SMALL_SEEDS}, with --full {FULL_SEEDS})"
    )
    add("--nets", nargs="+", metavar="NET", help="only these (default: all)")
    add("--images", type=above_zero, metavar="N", help="images that each net sees (default: the task's)")
    add("--drawn", type=above_zero, metavar="N", help="training images per class, or scenes (default: the task's)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    changed = {key: value for key in ("images", "drawn") if (value := getattr(options, key)) is not None}
    tasks = {name: dataclasses.replace(task, **changed) for name, task in (FULL if options.full else SMALL).items()}
    known = [net for task in tasks.values() for net in task.printed]
    if unknown := [net for net in options.nets or () if net not in known]:
        raise InputError(f"--nets: no net {unknown[0]!r}, expected some of: {', '.join(known)}")
    results = read_results(options.out / "results.json", tasks)
    done = {(result.task, result.net, result.seed) for result in results}
    for seed in range(options.seeds or (FULL_SEEDS if options.full else SMALL_SEEDS)):
        for name, task in tasks.items():
            for net in task.printed:
                if (name, net, seed) not in done and net in (options.nets or known):
                    results.append(train_net(options.out, name, task, net, seed, workers=8 if options.full else 0))
                    write_results(options.out, tasks, results)
    print(f"Results saved to {options.out}")
    return EXIT_OK


def read_results(path: Path, tasks: Mapping[str, Task]) -> list[Result]:
    """The results of an earlier run. Raises InputError if it trained with other settings."""
    if not path.exists():
        return []
    found = json.loads(read_text(path, "results"))
    if found["tasks"] != as_plain(tasks):
        raise InputError(f"{path}: trained with other settings, expected another --out for these")
    return [Result(**each) for each in found["results"]]


def write_results(folder: Path, tasks: Mapping[str, Task], results: Sequence[Result]) -> None:
    plain = {"tasks": as_plain(tasks), "results": [dataclasses.asdict(result) for result in results]}
    write_text(folder / "results.json", json.dumps(plain, indent=1) + "\n")
    found = {name: [each for each in results if each.task == name] for name in tasks}
    parts = [markdown(folder, name, tasks[name], each) for name, each in found.items() if each]
    write_text(folder / "results.md", "\n".join(parts))


def as_plain(tasks: Mapping[str, Task]) -> dict[str, dict[str, object]]:
    """The settings that determine the results of each task, as plain JSON data."""
    keys = ("side", "drawn", "images", "batch", "rate", "metric")
    return {name: {key: getattr(task, key) for key in keys} for name, task in tasks.items()}


def train_net(folder: Path, name: str, task: Task, net: str, seed: int, *, workers: int) -> Result:
    """Train a net, or resume a training that was stopped."""
    run, cfg = folder / "runs" / f"{name}-{net}-{seed}", folder / "cfg" / f"{name}-{net}.cfg"
    write_text(cfg, cfg_text(name, task, net))
    started = time.process_time()
    figure = last_figure(run, task)
    if figure is None:
        last = run / "weights" / "last.pt"
        arguments = ["--resume", str(last)] if last.exists() else new_training(folder, name, task, run, seed, cfg)
        print(f"{name}, {net}, seed {seed}", flush=True)
        code = run_script(train.main, [*arguments, "--workers", str(workers)])
        if code == EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        figure = last_figure(run, task)
        if code != EXIT_OK or figure is None:
            raise RunError(f"{run}: the training failed")
    for path in (run / "weights").iterdir():
        if not path.name.endswith("_final.weights"):
            path.unlink()
    print(f"{task.metric} {100 * figure:.2f} %", flush=True)
    seconds = round(time.process_time() - started, 1)
    return Result(task=name, net=net, seed=seed, figure=round(100 * figure, 3), seconds=seconds)


def new_training(folder: Path, name: str, task: Task, run: Path, seed: int, cfg: Path) -> list[str]:
    """Arguments of train.py for a new training."""
    arguments = ["--cfg", str(cfg), "--data", str(draw(folder, name, task)), "--seed", str(seed)]
    arguments += ["--project", str(run.parent), "--name", run.name, "--exist-ok"]
    arguments += ["--eval-period", str(task.iterations), "--no-plots", "--no-tensorboard"]
    arguments += ["--adamw", "--cos-lr", "--amp", "bf16", "--bn-momentum", "0.1"]
    if name == "scenes":
        start = run.parent / f"shapes-{START}-{seed}" / "weights" / f"shapes-{START}_final.weights"
        arguments += ["--anchors", "auto"] + (["--weights", str(start), "--clear"] if start.exists() else [])
        arguments += ["--set", *(f"{key}={value}" for key, value in HEAD_KEYS.items())]
    return arguments


def last_figure(run: Path, task: Task) -> float | None:
    """The metric at the last iteration; None if the training has not reached it."""
    path = run / "results.csv"
    rows = list(csv.DictReader(read_text(path, "results").splitlines())) if path.exists() else []
    if not rows or int(rows[-1]["iteration"]) < task.iterations or not rows[-1][task.metric]:
        return None
    return float(rows[-1][task.metric])


def draw(folder: Path, name: str, task: Task) -> Path:
    """Draw the data set of a task; returns its path."""
    if name == "shapes":
        return make_shapes(folder / name, task.drawn, VALIDATED, task.side)
    if name == "cifar":
        return make_cifar(folder / name, task.drawn, VALIDATED)
    return make_scenes(folder / name, task.drawn, size=task.side)


def cfg_text(name: str, task: Task, net: str) -> str:
    """The cfg of a net, with the recipe of its task."""
    options: dict[str, Value] = {"batch": task.batch, "subdivisions": 1, "width": task.side, "height": task.side}
    options |= {"channels": 3, "decay": 0.01, "learning_rate": task.rate}
    options |= {"max_batches": task.iterations, "burn_in": task.iterations // 20, "power": 1}
    built = Net(task.side)
    if name == "scenes":
        options |= {"saturation": 1.5, "exposure": 1.5, "hue": ".1"}
        HEADS[net].build(built, BACKBONES[START].build(built))
    else:
        options |= {"min_crop": task.side, "max_crop": task.side * 9 // 8}
        classifier(built, {**BACKBONES, **OWN}[net].build(built), classes=len(task.classes))
    layers = [
        layer if layer.type != "yolo" else Section("yolo", {**layer.options, "random": 0}) for layer in built.layers
    ]
    return write_sections([Section("net", options), *layers])


def markdown(folder: Path, name: str, task: Task, results: Sequence[Result]) -> str:
    """The results of a task, and the differences printed in the papers."""
    figures = {net: [each.figure for each in results if each.net == net] for net in task.printed}
    means = {net: statistics.mean(values) for net, values in figures.items() if values}
    freedom = sum(len(values) - 1 for values in figures.values() if values)
    squares = sum((value - means[net]) ** 2 for net, values in figures.items() for value in values)
    spread = (squares / freedom) ** 0.5 if freedom else None
    figure = f"{task.metric} [%] by seed"
    head = ("net", "weights [M]", "BFLOPs", "papers", figure, "mean", "sd", "processor [s]")
    rows = [
        (net, *counts(folder, name, task, net), "–" if task.printed[net] is None else f"{task.printed[net]:.1f}",
         ", ".join(f"{value:.1f}" for value in figures[net]), f"{means[net]:.1f}",
         f"{statistics.stdev(figures[net]):.1f}" if len(figures[net]) > 1 else "–",
         f"{statistics.mean(each.seconds for each in results if each.net == net):.0f}")
        for net in means
    ]  # fmt: skip
    text = f"## {name}: {task.images:,} images of {task.side} x {task.side}\n\n{table(head, rows)}\n"
    if spread is None:
        return text
    quantile = T95[min(freedom, len(T95)) - 1]
    lines = []
    for better, worse, printed in task.compared:
        if better in means and worse in means:
            gain = means[better] - means[worse]
            margin = quantile * spread * (1 / len(figures[better]) + 1 / len(figures[worse])) ** 0.5
            found = "not decided" if abs(gain) <= margin else "as printed" if gain > 0 else "the opposite"
            lines.append((f"{better} - {worse}", printed, f"{gain:+.1f}", f"{margin:.1f}", found))
    pairs = [
        pair for pair in itertools.combinations(means, 2) if None not in (task.printed[pair[0]], task.printed[pair[1]])
    ]
    same = sum(agree(task.printed, means, *pair) for pair in pairs)
    return (
        f"{text}\nStandard deviation of a training over all nets: {spread:.2f} with {freedom} degrees of freedom. A difference "
        f"counts beyond the 95 % margin of Student's t. {same} of {len(pairs)} pairs with printed figures are in the printed "
        f"order.\n\n{table(('difference', 'the papers', 'ours', 'margin', ''), lines)}\n"
    )


def agree(printed: Mapping[str, float | None], means: Mapping[str, float], a: str, b: str) -> bool:
    """Whether two nets are in the printed order."""
    return ((printed[a] or 0) - (printed[b] or 0)) * (means[a] - means[b]) > 0


def counts(folder: Path, name: str, task: Task, net: str) -> Iterator[str]:
    """Millions of weights, and BFLOPs, with the classes and input size of the task."""
    plan = read_plan_to_fit(folder / "cfg" / f"{name}-{net}.cfg")
    sums = totals(make_plan(fit_classes(plan, len(task.classes))))
    yield f"{sums['conv_weights'] / 1e6:.2f}"
    yield f"{sums['bflops_paper']:.3f}"


if __name__ == "__main__":
    sys.exit(run_script(main))

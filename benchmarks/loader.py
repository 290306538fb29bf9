"""Check that the loader keeps the network busy: images per second of the loader alone, and consumed by training.

The two are measured in turns in one process, so that the ratio holds if the machine's speed drifts: the loader with its worker
processes while nothing trains, then weight updates on batches made before. Every other sample is a mosaic.

  python benchmarks/loader.py                                        generated scenes
  python benchmarks/loader.py --data my.data --img-size 608 --workers 4 --cache-images
"""

from __future__ import annotations

import argparse
import itertools
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import cfg_path
from data.loader import TrainBatch
from data.scenes import make_scenes
from models.plan import read_plan
from train import parse_arguments as train_options
from training.prepare import fit_cfg, open_splits
from training.run import Run

SCENES = 200


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--cfg", default=str(cfg_path("csppeleenet-efm")))
    add("--data", help="dataset (default: generated scenes)")
    add("--img-size", type=int, default=416)
    add("--batch-size", type=int, default=8)
    add("--workers", type=int, default=2)
    add("--cache-images", action="store_true")
    add("--amp", choices=("bf16",))
    add("--turns", type=int, default=3)
    add("--batches", type=int, default=12, help="batches of the loader per turn")
    add("--updates", type=int, default=2, help="weight updates per turn")
    return parser.parse_args()


def make_run(options: argparse.Namespace, folder: Path) -> Run:
    data = options.data or str(make_scenes(folder / "scenes", SCENES))
    flags = ["--cfg", options.cfg, "--data", data, "--set", "mosaic=1", "--no-val", "--no-tensorboard"]
    flags += ["--img-size", str(options.img_size), "--batch-size", str(options.batch_size), "--subdivisions", "1"]
    flags += ["--workers", str(options.workers), *(["--cache-images"] if options.cache_images else [])]
    settings = train_options([*flags, *(["--amp", options.amp] if options.amp else [])])
    splits = open_splits(data, None, single_cls=False, validation=False, workers=options.workers)
    return Run(settings, fit_cfg(read_plan(options.cfg), settings, splits), splits)


def loader_speed(run: Run, count: int) -> tuple[float, list[TrainBatch]]:
    """Images per second, not counting those prefetched, and the batches."""
    batches = iter(run.loader)
    ready = 2 * max(1, run.options.workers) + 1  # PyTorch prefetches two batches per worker
    for _ in range(ready):
        next(batches)
    begin = time.perf_counter()
    made = list(itertools.islice(batches, count))
    seconds = time.perf_counter() - begin
    batches.close()  # type: ignore[attr-defined]
    return sum(len(batch.images) for batch in made) / seconds, made


def training_speed(run: Run, batches: list[TrainBatch]) -> float:
    begin = time.perf_counter()
    for batch in batches:
        run.trainer.update([batch])
    return sum(len(batch.images) for batch in batches) / (time.perf_counter() - begin)


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    options = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(options, Path(folder))
        _, batches = loader_speed(run, 1)
        training_speed(run, batches)  # warm-up
        ratios = []
        print(
            f"{Path(options.cfg).name} at {options.img_size}, mosaic, batch {options.batch_size}, {options.workers} workers"
        )
        for turn in range(options.turns):
            made, batches = loader_speed(run, options.batches)
            used = training_speed(run, batches[: options.updates])
            ratios.append(made / used)
            print(f"turn {turn + 1}: loader {made:.1f} images/s, training {used:.2f} images/s, ratio {ratios[-1]:.1f}")
        print(f"median ratio {statistics.median(ratios):.1f}")


if __name__ == "__main__":
    main()

"""Does the loader keep the network busy? Images a second that it makes alone, against what a training consumes.

Both are measured in turns in one process, so that the ratio holds when the machine's speed drifts: the loader with its
worker processes while nothing is trained, then weight updates on batches made before. Samples are mosaics every other time.

  python benchmarks/loader.py                                        drawn scenes
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

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from data.loader import TrainBatch
from data.scenes import make_scenes
from training.options import TrainOptions
from training.prepare import fitted, open_sets
from training.run import Run

SCENES = 200


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--cfg", default=str(ROOT / "cfg" / "csppeleenet-efm.cfg"))
    add("--data", help="default: drawn scenes")
    add("--img-size", type=int, default=416)
    add("--batch-size", type=int, default=8)
    add("--workers", type=int, default=2)
    add("--cache-images", action="store_true")
    add("--amp", choices=("bf16",))
    add("--turns", type=int, default=3)
    add("--batches", type=int, default=12, help="of the loader in a turn")
    add("--updates", type=int, default=2, help="of the network in a turn")
    return parser.parse_args()


def start(options: argparse.Namespace, folder: Path) -> Run:
    settings = TrainOptions(
        cfg=options.cfg,
        data=options.data or str(make_scenes(folder / "scenes", SCENES)),
        img_size=(options.img_size,),
        batch_size=options.batch_size,
        subdivisions=1,
        workers=options.workers,
        cache_images="ram" if options.cache_images else None,
        amp=options.amp,
        net=("mosaic=1",),
        notest=True,
        tensorboard=False,
    )
    sets = open_sets(settings)
    return Run(settings, fitted(settings, sets), sets)


def loader_speed(run: Run, count: int) -> tuple[float, list[TrainBatch]]:
    """Images a second, without those that were ready when the first batch was; and the last batches."""
    batches = iter(run.loader)
    ahead = 2 * max(1, run.settings.workers) + 1  # PyTorch keeps two batches ready for each worker
    for _ in range(ahead):
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
        run = start(options, Path(folder))
        _, batches = loader_speed(run, 1)
        training_speed(run, batches)  # the first update sets everything up
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

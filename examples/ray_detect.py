"""Detect objects in millions of images on a Ray cluster. After a failure, run it again to process what is missing.

python examples/ray_detect.py images.txt found --model my.cfg --weights my.weights --names my.names --workers 8

`found` receives a Parquet file for every `--shard` images, in the order of the list: path, width, height, and lists of
class_id, score and box (left, top, right, bottom in pixels); `error` says why an image could not be read. A file appears
once all of its images are done. With several machines, put the list, the images and `found` on shared storage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from cspyolo import YOLO, InputError

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("class_id", pa.list_(pa.int32())),
        ("score", pa.list_(pa.float32())),
        ("box", pa.list_(pa.list_(pa.float32(), 4))),
        ("error", pa.string()),
    ]
)


class Detector:
    """A worker process: opens the model once, then processes shards."""

    def __init__(self, model: str, weights: str | None, names: str | None, device: str) -> None:
        self.model = YOLO(model, weights, names=names, device=device)

    def __call__(self, shard: dict[str, Any]) -> dict[str, Any]:
        target, paths = Path(shard["target"]), [str(path) for path in shard["paths"]]
        table = pa.Table.from_pylist([self.row(path) for path in paths], schema=SCHEMA)
        part = target.with_name(f".{target.name}.{ray.get_runtime_context().get_actor_id()}")
        pq.write_table(table, part)
        part.replace(target)
        return {"images": len(paths), "failed": len(paths) - table["error"].null_count}

    def row(self, path: str) -> dict[str, Any]:
        try:
            result = self.model(path)[0]
        except InputError as error:
            return {"path": path, "error": str(error)}
        height, width = result.orig_shape
        boxes = result.boxes
        found = {"class_id": boxes.cls.tolist(), "score": boxes.conf.tolist(), "box": boxes.xyxy.tolist()}
        return {"path": path, "width": width, "height": height, **found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path, help="image files, one per line")
    parser.add_argument("out", type=Path, help="folder for the Parquet files")
    parser.add_argument("--model", default="scenes", help="cfg or model file; default: the shipped detector")
    parser.add_argument("--weights")
    parser.add_argument("--names")
    parser.add_argument("--workers", type=int, default=2, help="processes, each with a model, default 2")
    parser.add_argument("--cpus", type=float, default=1, help="CPU cores per worker, default 1")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs per worker, default 0")
    parser.add_argument("--shard", type=int, default=1000, help="images per file, default 1000")
    parser.add_argument("--address", help="address of the Ray cluster; default: this machine only")
    options = parser.parse_args()
    paths = options.list.read_text().splitlines()
    options.out.mkdir(parents=True, exist_ok=True)
    shards = [
        {"target": str(options.out / f"{start:010}.parquet"), "paths": paths[start : start + options.shard]}
        for start in range(0, len(paths), options.shard)
    ]
    missing = [shard for shard in shards if not Path(shard["target"]).exists()]
    print(f"{len(shards) - len(missing)} of {len(shards)} files are there", flush=True)
    if not missing:
        return 0
    ray.init(address=options.address)
    done = (
        ray.data.from_items(missing, override_num_blocks=len(missing))
        .map(
            Detector,  # type: ignore[arg-type]  # Ray expects a class here and creates an instance in each worker
            fn_constructor_args=(options.model, options.weights, options.names, "0" if options.gpus else "cpu"),
            compute=ray.data.ActorPoolStrategy(size=options.workers),
            num_cpus=options.cpus,
            num_gpus=options.gpus or None,
        )
        .take_all()
    )
    images, failed = (sum(each[key] for each in done) for key in ("images", "failed"))
    print(f"{images} images, {failed} of which could not be read")
    return 0


if __name__ == "__main__":
    sys.exit(main())

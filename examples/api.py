"""Detection from Python: open a model, detect objects in images, count them, draw them, convert them to plain data.

python examples/api.py --cfg yolov4.cfg --weights yolov4.weights --names coco.names --out drawn street.jpg dog.jpg
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # not needed by a script beside detect.py


from data.image import read_image
from inference.model import open_model
from inference.predictor import NmsOptions
from inference.results import found_text
from utils.cli import EXIT_OK, run_script
from utils.draw import annotate
from utils.files import atomic_write


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", required=True, help="Darknet cfg file")
    parser.add_argument("--weights", required=True, help="Darknet .weights file")
    parser.add_argument("--names", required=True, help="class names, one in each line")
    parser.add_argument("--out", default="drawn", metavar="DIR", help="folder for the annotated images")
    parser.add_argument("images", nargs="+", help="image files")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    model = open_model(options.weights, cfg=options.cfg, names=options.names)

    # Images are arrays, uint8 (height, width, 3), red first. cv2.imread gives blue first: turn it with [..., ::-1].
    images = [read_image(path) for path in options.images]
    results = model.predict(images, NmsOptions(conf=0.25, iou=0.45))

    for path, image, found in zip(options.images, images, results, strict=True):
        print(f"{path}: {found_text(found.class_ids, model.names)}")
        for (left, top, right, bottom), score, class_id in found:
            print(f"  {model.names[class_id]} {score:.2f} at {left:.0f}, {top:.0f}, {right:.0f}, {bottom:.0f}")
        large = found.select((found.xyxy[:, 2:] - found.xyxy[:, :2]).min(axis=1) >= 10)  # numpy does the rest
        drawn = annotate(image, large, model.names)
        with atomic_write(Path(options.out) / f"{Path(path).stem}.png") as stream:
            stream.write(cv2.imencode(".png", drawn[..., ::-1])[1].tobytes())
        plain = found.to_dict(model.names)  # for the library supervision: sv.Detections(**plain)
        assert len(plain["class_id"]) == len(found)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(run_script(main))

"""Measure the accuracy and speed of a detector or classifier, or check a dataset.

examples:
  python test.py --cfg yolov4.cfg --weights yolov4.weights --data coco.data
  python test.py --cfg my.cfg --weights my.weights --data bccd/ --split test --print darknet
  python test.py --task doctor --data my.data
  python test.py --task anchors --data my.data --count 9 --img-size 416
  python test.py --task study --cfg my.cfg --weights my.weights --data my.data --img-size 320 416 512
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from evaluation.doctor import anchors, doctor
from evaluation.metrics.darknet import CONF_THRESH, MATCH_THRESH, NMS_THRESH, POINTS
from evaluation.options import EvaluationOptions
from evaluation.run import VALID_NMS_THRESH
from evaluation.study import speed, study
from evaluation.validate import validate
from inference.model import ModelFlags
from utils.cli import EXIT_OK, above_zero, flags_of, fraction, options_from, run_script, script_parser
from utils.errors import InputError

TASKS = {"val": validate, "doctor": doctor, "anchors": anchors, "study": study, "speed": speed}


def parse_arguments(arguments: Sequence[str] | None) -> EvaluationOptions:
    parser = script_parser("test.py", __doc__)
    add = flags_of(parser)
    ModelFlags.add(
        add,
        names="class names, one per line; default: those of the dataset",
        img_size="input size: N (square) or WIDTH HEIGHT; study: several square sizes; default: the cfg's",
    )
    add(
        "--data",
        required=True,
        help="dataset: .data, .yaml, COCO .json or folder, Pascal VOC, ImageNet or CIFAR-10 folder, folder or list of images",
    )
    add("--split", help="split of the dataset, default val (doctor: all splits; anchors: train)")
    add("--task", choices=TASKS, default="val", help="val: evaluate; doctor: check the dataset; anchors: compute anchors "
        "for it; study: sweep input sizes and confidence thresholds; speed: measure speed only")  # fmt: skip
    add("--batch-size", default=16)
    add("--conf-thres", nargs="+", default=(), help="lowest score of detections, default 0.001 (study: several values)")
    add("--iou-thres", default=None, help=f"NMS IoU threshold, default {NMS_THRESH} for the original's mAP and "
        f"{VALID_NMS_THRESH} for COCO and Pascal VOC, as in the original")  # fmt: skip
    add("--match-iou", type=fraction, default=MATCH_THRESH, metavar="T", help="IoU above which a detection matches an object "
        "in the original's mAP (its -iou_thresh), default %(default)s")  # fmt: skip
    add("--pr-conf", type=fraction, metavar="T", help="confidence threshold of precision, recall and F1 (the original's "
        f"-thresh), default {CONF_THRESH}")  # fmt: skip
    add(
        "--count",
        type=above_zero,
        metavar="N",
        help="anchors: number of anchors; default: as many as the cfg has, or 9",
    )
    add("--letter-box")
    add("--resize")
    add(
        "--points",
        type=int,
        choices=POINTS,
        default=0,
        help="number of recall points of --print darknet; default 0: area under the curve",
    )
    add("--print", choices=("table", "darknet"), default="table", help="darknet: print as the original does")
    add("--save-json", action="store_true", help="save results.json: detections in COCO format")
    add(
        "--save-voc",
        action="store_true",
        help="save results/comp4_det_test_<class>.txt: detections for the Pascal VOC tools",
    )
    add("--save-txt")
    add("--save-conf")
    add("--no-plots")
    add("--single-cls")
    add("--augment")
    add(
        "--ten-crop",
        action="store_true",
        help="classifiers: average ten crops of each image, like the original's valid10",
    )
    add("--verbose", action="store_true", help="also list classes without objects and every problem the doctor finds")
    add("--workers", type=above_zero, default=4, metavar="N", help="threads that read images, default %(default)s")
    add("--project", default="runs/test")
    add("--name")
    add("--exist-ok")
    return options_from(EvaluationOptions, parser, arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if options.task not in ("doctor", "anchors") and not (options.cfg or options.weights):
        raise InputError(f"--task {options.task} requires --weights or --cfg")
    if options.ten_crop and options.task != "val":
        raise InputError(f"--ten-crop: has no effect on --task {options.task}, only on val")
    TASKS[options.task](options)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(run_script(main))

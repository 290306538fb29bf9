"""Measure detection quality and speed, or the accuracy of a classifier, or look a data set over.

examples:
  python test.py --cfg yolov4.cfg --weights yolov4.weights --data coco.data
  python test.py --cfg my.cfg --weights my.weights --data bccd/ --split test --print darknet
  python test.py --task doctor --data my.data
  python test.py --task study --cfg my.cfg --weights my.weights --data my.data --img-size 320 416 512
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from evaluation.doctor import doctor
from evaluation.metrics.darknet import NMS_THRESH, POINTS
from evaluation.options import EvaluationOptions
from evaluation.quality import validate
from evaluation.study import speed, study
from inference.opening import BACKENDS
from utils.cli import above_zero, run_script, script_parser, share
from utils.errors import InputError
from utils.letterbox import KERNELS

TASKS = {"val": validate, "doctor": doctor, "study": study, "speed": speed}


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = script_parser("test.py", __doc__)
    add = parser.add_argument
    add("--cfg", help="Darknet cfg file; .pt, .safetensors and exported models have theirs inside")
    add("--weights", help=".weights, .pt, .safetensors, .onnx, .xml or .torchscript file")
    add("--backend", choices=BACKENDS, help="what runs the model; default: by the kind of file")
    add("--ema", action="store_true", help="the averages of a training run in the place of its weights")
    add("--trust-pickle", action="store_true", help="read .pt by pickle: it runs whatever code the file asks for")
    add("--data", required=True, help=".data, .yaml, COCO .json or folder, Pascal VOC, folder or list of images")
    add("--names", help="names file to use in place of the data set's own")
    add("--split", help="split of the data set, default val (doctor: all splits)")
    add("--task", choices=TASKS, default="val", help="val: measure; doctor: check the data set; study: sweep sizes and "
        "confidences; speed: time only")  # fmt: skip
    add("--batch-size", type=above_zero, default=16, help="images at a time, default 16")
    add("--img-size", type=above_zero, nargs="+", default=[], metavar="N",
        help="input size: one number, or width height; study: several square sizes; default: the cfg's")  # fmt: skip
    add("--conf-thres", type=share, nargs="+", default=[], metavar="T",
        help="least score, default 0.001 (study: several)")  # fmt: skip
    add("--iou-thres", type=share, default=NMS_THRESH, help="overlap for suppression, default 0.45, the original's")
    add("--letter-box", type=int, choices=(0, 1), help="1: keep the aspect ratio, 0: stretch; default: the cfg's")
    add("--resize", choices=KERNELS, default=KERNELS[0], help="the original's resizing, or OpenCV's")
    add("--points", type=int, choices=POINTS, default=0, help="recalls of --print darknet, 0: area under the curve")
    add("--print", choices=("table", "darknet"), default="table", help="darknet: the original's wording")
    add("--save-json", action="store_true", help="write results.json (COCO's format)")
    add("--save-txt", action="store_true", help="write a text file of boxes for each image")
    add("--save-conf", action="store_true", help="with the score at the end of each line of --save-txt")
    add("--no-plots", action="store_true", help="numbers only: no curves and no images")
    add("--device", default="", help="cpu, mps, or a CUDA index; default: a GPU if there is one")
    add("--half", action="store_true", help="16-bit floats, on a GPU")
    add("--single-cls", action="store_true", help="treat all classes as one")
    add("--augment", action="store_true", help="look at the mirrored image as well")
    add("--verbose", action="store_true", help="also classes without objects, and every finding of the doctor")
    add("--workers", type=above_zero, default=4, help="threads that read images, default 4")
    add("--project", default="runs/test", help="folder of the run folders, default runs/test")
    add("--name", default="exp", help="name of the run folder, default exp, exp2, ...")
    add("--exist-ok", action="store_true", help="write into an existing run folder")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    values = vars(parse_arguments(arguments))
    values["img_size"], values["conf_thres"] = tuple(values["img_size"]), tuple(values["conf_thres"])
    settings = EvaluationOptions(**values)
    if settings.task != "doctor" and not (settings.cfg or settings.weights):
        raise InputError(f"--task {settings.task} needs --cfg")
    return TASKS[settings.task](settings)


if __name__ == "__main__":
    sys.exit(run_script(main))

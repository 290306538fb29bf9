"""Find objects in images, folders, lists, videos, cameras and streams with a Darknet model; a classifier names images.

examples:
  python detect.py                                      a first look: the shipped detector on sample images
  python detect.py --cfg yolov4.cfg --weights yolov4.weights --names coco.names --source street.jpg
  python detect.py --cfg my.cfg --weights my.weights --names my.names --source video.mp4 --save-json
  python detect.py --cfg my.cfg --weights my.weights --names my.names --source 0 --view-img
  python detect.py --cfg my.cfg --weights my.weights --names my.names --source rtsp://camera/stream1 --nosave --save-csv
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from data.formats.darknet import class_names
from data.frames import open_frames
from inference.classifier import Classifier
from inference.classify import name_images
from inference.first_look import next_steps
from inference.opening import BACKENDS, OpenedModel, RuntimeOptions, open_model
from inference.pipeline import run, summary
from inference.recorder import Recorder, RecordOptions
from models.formats.files import LoadOptions
from utils.cli import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, above_zero, run_script, script_parser, share
from utils.device import select_device
from utils.errors import InputError
from utils.files import run_folder
from utils.letterbox import KERNELS

SHIPPED = Path(__file__).parent / "weights" / "scenes"
SAMPLES = Path(__file__).parent / "data" / "samples"


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = script_parser("detect.py", __doc__)
    add = parser.add_argument
    add("--cfg", metavar="FILE", help="Darknet cfg file; .pt, .safetensors and exported models have theirs inside")
    add("--weights", metavar="FILE", help=".weights, .pt, .safetensors, .onnx, .xml or .torchscript file")
    add("--names", metavar="FILE", help="class names, one in each line; default: class 0, class 1, ...")
    add(
        "--source",
        help="image, folder, glob, .txt list, video, camera number, rtsp:// or http:// address",
    )
    add(
        "--img-size",
        type=above_zero,
        nargs="+",
        default=[],
        metavar="N",
        help="input size: N, or WIDTH HEIGHT; default: the cfg's",
    )
    add("--conf-thres", type=share, default=0.25, metavar="T", help="least score, default 0.25")
    add(
        "--iou-thres",
        type=share,
        default=0.45,
        metavar="T",
        help="overlap above which the weaker box goes, default 0.45",
    )
    add("--classes", type=int, nargs="+", metavar="ID", help="only these classes: --classes 0 2")
    add("--agnostic-nms", action="store_true", help="suppress overlapping boxes of different classes too")
    add("--max-det", type=above_zero, default=1000, metavar="N", help="most objects in an image, default 1000")
    add(
        "--letter-box",
        type=int,
        choices=(0, 1),
        help="1: keep the aspect ratio, 0: stretch; default: the cfg's letter_box",
    )
    add("--resize", choices=KERNELS, default=KERNELS[0], help="the original's resizing (default), or OpenCV's")
    add("--augment", action="store_true", help="look at the mirrored image as well")
    add("--device", default="", help="cpu, mps, or a CUDA index such as 0; default: a GPU if there is one")
    add("--half", action="store_true", help="16-bit floats on a GPU")
    add("--batch-size", type=above_zero, default=1, metavar="N", help="images at a time, default 1")
    add("--partial", action="store_true", help="accept weights that fit only in part")
    add("--backend", choices=BACKENDS, help="what runs the model; default: by the kind of file")
    add("--ema", action="store_true", help="of a training checkpoint the averages in the place of its weights")
    add("--trust-pickle", action="store_true", help="read .pt by pickle: it runs whatever code the file asks for")
    add("--save-txt", action="store_true", help="labels/*.txt: class, centre and size relative to the image")
    add("--save-conf", action="store_true", help="with the score at the end of each line of --save-txt")
    add("--save-json", action="store_true", help="results.json: COCO result list with file_name, frame and time_s")
    add("--save-csv", action="store_true", help="results.csv, a row for each object, written as they are found")
    add("--save-crop", action="store_true", help="crops/<class>/*.jpg: each object cut out")
    add("--nosave", action="store_true", help="no annotated images and videos")
    add("--view-img", action="store_true", help="show results in a window")
    add("--line-thickness", type=above_zero, metavar="PX", help="of boxes; default: in proportion to the image")
    add("--hide-labels", action="store_true", help="boxes only")
    add("--hide-conf", action="store_true", help="labels without scores")
    add("--vid-stride", type=above_zero, default=1, metavar="N", help="take every Nth frame of a video")
    add("--fourcc", default="mp4v", help="codec of written videos, default mp4v")
    add("--print", choices=("short", "darknet"), default="short", help="darknet: lines as the original prints them")
    add("--project", default="runs/detect", metavar="DIR", help="folder of the run folders, default runs/detect")
    add("--name", default="exp", help="name of the run folder, default exp, then exp2, ...")
    add("--exist-ok", action="store_true", help="write into an existing run folder")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    first_look = options.cfg is None and options.weights is None and options.source is None
    if options.view_img:
        refuse_missing_screen()
    use_shipped_model(options)
    predictor, own_names = open_any(options)
    if isinstance(predictor, Classifier):
        return name_images(predictor, names_of(options, own_names, predictor.classes), options)
    classes = predictor.detector.classes
    refuse_unknown_classes(options, classes)
    names = names_of(options, own_names, classes)
    cfg_says = predictor.network.plan.net.letter_box
    letter_box = cfg_says if options.letter_box is None else bool(options.letter_box)
    frames = open_frames(options.source, vid_stride=options.vid_stride)
    with closing(frames):
        folder = run_folder(options.project, options.name, exist_ok=options.exist_ok)
        start = time.perf_counter()
        with Recorder(folder, names, record_options(options)) as recorder:
            tally = run(predictor, frames, recorder, names, letter_box, options)
    print(summary(tally, names, recorder.seconds, time.perf_counter() - start))
    print(f"Results saved to {folder}")
    if first_look:
        print(f"\n{next_steps()}")
    if tally.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if tally.failures else EXIT_OK


def use_shipped_model(options: argparse.Namespace) -> None:
    """Without a model of the user's, take the one that comes with the project; without a source, its sample images."""
    if options.cfg is None and options.weights is None:
        options.cfg, options.weights = str(SHIPPED.with_suffix(".cfg")), str(SHIPPED.with_suffix(".weights"))
        options.names = options.names or str(SHIPPED.with_suffix(".names"))
        print(f"no --cfg and --weights: weights/{SHIPPED.name}.weights is used, a small detector of drawn scenes")
    elif options.weights is None:
        raise InputError(
            "--weights is missing: a cfg alone finds nothing; expected a .weights, .pt, .safetensors or .onnx file"
        )
    if options.source is None:
        options.source = os.path.relpath(SAMPLES)
        print(f"no --source: the images and the clip in {os.path.relpath(SAMPLES)} are used")


def names_of(options: argparse.Namespace, own_names: tuple[str, ...], classes: int) -> tuple[str, ...]:
    """Names of the classes: of --names, or else the model file's own. Raises InputError if they are too many or too few."""
    if options.names or not own_names:
        return class_names(options.names, classes, options.cfg or options.weights)
    if len(own_names) != classes:
        text = f"has {len(own_names)} names in it for {classes} classes; give others by --names"
        raise InputError(f"{options.weights}: {text}")
    return own_names


def open_any(options: argparse.Namespace) -> OpenedModel:
    """What detects or classifies, ready for inference on its device, and the class names that its file holds."""
    if len(options.img_size) > 2:
        raise InputError("--img-size: expected one number or width and height")
    device = select_device(options.device)
    if options.half and device.type == "cpu":
        raise InputError("--half: 16-bit floats are for a GPU, this run is on the cpu")
    size = options.img_size or [None]
    reading = LoadOptions(
        cfg=options.cfg,
        device=device,
        width=size[0],
        height=size[-1],
        ema=options.ema,
        trust_pickle=options.trust_pickle,
        partial=options.partial,
    )
    return open_model(
        options.weights,
        RuntimeOptions(backend=options.backend, reading=reading, half=options.half, mirrored=options.augment),
    )


def refuse_unknown_classes(options: argparse.Namespace, classes: int) -> None:
    wrong = [each for each in options.classes or () if not 0 <= each < classes]
    if wrong:
        raise InputError(f"--classes {wrong[0]}: {options.cfg or options.weights} has classes 0 to {classes - 1}")


def refuse_missing_screen() -> None:
    """OpenCV's Qt would end the whole process; QT_QPA_PLATFORM may name a platform that needs no screen."""
    if sys.platform == "linux" and not any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"))):
        raise InputError("--view-img: there is no screen (DISPLAY is not set); leave the flag out")


def record_options(options: argparse.Namespace) -> RecordOptions:
    return RecordOptions(
        media=not options.nosave,
        show=options.view_img,
        labels_txt=options.save_txt or options.save_conf,
        scores_in_txt=options.save_conf,
        json=options.save_json,
        csv=options.save_csv,
        crops=options.save_crop,
        thickness=options.line_thickness,
        hide_labels=options.hide_labels,
        hide_scores=options.hide_conf,
        codec=options.fourcc,
        vid_stride=options.vid_stride,
    )


if __name__ == "__main__":
    sys.exit(run_script(main))

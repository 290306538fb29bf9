"""Find objects in pictures, folders, lists, videos, cameras and streams with a Darknet model.

examples:
  python detect.py                                      a first look: the shipped detector on sample pictures
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
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.frames import Failure, Frames, open_frames
from data.inputs import Prepared, batches, prepare
from data.names import class_names
from data.prefetch import Prefetch
from models.backends.choice import BACKENDS, Opened, Run, open_predictor
from models.detector import Selection
from models.formats.files import Reading
from models.predictor import Predictor
from utils.arguments import above_zero, share
from utils.cli import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, run_script
from utils.console import darknet_lines, found_text
from utils.detections import Detections
from utils.device import select_device
from utils.errors import InputError
from utils.files import run_folder
from utils.next_steps import next_steps
from utils.recorder import Recorder, RecordOptions
from utils.resize import KERNELS
from utils.results import Seen

SHIPPED = Path(__file__).parent / "weights" / "scenes"
SAMPLES = Path(__file__).parent / "data" / "samples"
NAMED = 10  # classes that the summary names
AHEAD = 4  # inputs that wait for the network


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="detect.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cfg", metavar="FILE", help="Darknet cfg file; .pt, .safetensors and exported models have theirs inside")
    add("--weights", metavar="FILE", help=".weights, .pt, .safetensors, .onnx, .xml or .torchscript file")
    add("--names", metavar="FILE", help="class names, one in each line; default: class 0, class 1, ...")
    add(
        "--source",
        help="picture, folder, glob, .txt list, video, camera number, rtsp:// or http:// address",
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
    add("--max-det", type=above_zero, default=1000, metavar="N", help="most objects in a picture, default 1000")
    add(
        "--letter-box",
        type=int,
        choices=(0, 1),
        help="1: keep the aspect ratio, 0: stretch; default: the cfg's letter_box",
    )
    add("--resize", choices=KERNELS, default=KERNELS[0], help="the original's resizing (default), or OpenCV's")
    add("--augment", action="store_true", help="look at the mirrored picture as well")
    add("--device", default="", help="cpu, mps, or a CUDA index such as 0; default: a GPU if there is one")
    add("--half", action="store_true", help="16-bit floats on a GPU")
    add("--batch-size", type=above_zero, default=1, metavar="N", help="pictures at a time, default 1")
    add("--partial", action="store_true", help="accept weights that fit only in part")
    add("--backend", choices=BACKENDS, help="what runs the model; default: by the kind of file")
    add("--ema", action="store_true", help="of a training checkpoint the averages in the place of its weights")
    add("--trust-pickle", action="store_true", help="read .pt by pickle: it runs whatever code the file asks for")
    add("--save-txt", action="store_true", help="labels/*.txt: class, centre and size relative to the picture")
    add("--save-conf", action="store_true", help="with the score at the end of each line of --save-txt")
    add("--save-json", action="store_true", help="results.json: COCO result list with file_name, frame and time_s")
    add("--save-csv", action="store_true", help="results.csv, a row for each object, written as they are found")
    add("--save-crop", action="store_true", help="crops/<class>/*.jpg: each object cut out")
    add("--nosave", action="store_true", help="no annotated pictures and videos")
    add("--view-img", action="store_true", help="show results in a window")
    add("--line-thickness", type=above_zero, metavar="PX", help="of boxes; default: in proportion to the picture")
    add("--hide-labels", action="store_true", help="boxes only")
    add("--hide-conf", action="store_true", help="labels without scores")
    add("--vid-stride", type=above_zero, default=1, metavar="N", help="take every Nth frame of a video")
    add("--fourcc", default="mp4v", help="codec of written videos, default mp4v")
    add("--print", choices=("short", "darknet"), default="short", help="darknet: lines as the original prints them")
    add("--project", default="runs/detect", metavar="DIR", help="folder of the run folders, default runs/detect")
    add("--name", default="exp", help="name of the run folder, default exp, then exp2, ...")
    add("--exist-ok", action="store_true", help="write into an existing run folder")
    return parser.parse_args(arguments)


@dataclass(kw_only=True)
class Tally:
    """What the run has done so far. Seconds: `reading` is time spent waiting for pictures, fitting them goes on beside."""

    pictures: int = 0
    objects: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    reading: float = 0.0
    fitting: float = 0.0
    network: float = 0.0
    boxes: float = 0.0
    interrupted: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    first_look = options.cfg is None and options.weights is None and options.source is None
    if options.view_img:
        refuse_missing_screen()
    use_shipped_model(options)
    predictor, own_names = open_model(options)
    refuse_unknown_classes(options, predictor.detector.classes)
    classes = predictor.detector.classes
    if own_names and not options.names:
        names = own_names
        if len(names) != classes:
            raise InputError(
                f"{options.weights}: has {len(names)} names in it for {classes} classes; give others by --names"
            )
    else:
        names = class_names(options.names, classes, options.cfg or options.weights)
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
    """Without a model of the user's, take the one that comes with the project; without a source, its sample pictures."""
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
        print(f"no --source: the pictures and the clip in {os.path.relpath(SAMPLES)} are used")


def open_model(options: argparse.Namespace) -> Opened:
    """What detects, ready for inference on its device, and the class names that its file holds."""
    if len(options.img_size) > 2:
        raise InputError("--img-size: expected one number or width and height")
    device = select_device(options.device)
    if options.half and device.type == "cpu":
        raise InputError("--half: 16-bit floats are for a GPU, this run is on the cpu")
    size = options.img_size or [None]
    reading = Reading(
        cfg=options.cfg,
        device=device,
        width=size[0],
        height=size[-1],
        ema=options.ema,
        trust_pickle=options.trust_pickle,
        partial=options.partial,
    )
    return open_predictor(
        options.weights, Run(backend=options.backend, reading=reading, half=options.half, mirrored=options.augment)
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


def run(
    predictor: Predictor,
    frames: Frames,
    recorder: Recorder,
    names: Sequence[str],
    letter_box: bool,
    options: argparse.Namespace,
) -> Tally:
    """Everything from the first picture to the last, or to Ctrl-C."""
    tally = Tally()
    channels = predictor.network.plan.input.channels
    prepared = prepare(frames, predictor.size_wh, channels=channels, letter_box=letter_box, kernel=options.resize)
    # A live source is fitted at the last moment: what is made ahead would be old when its turn comes.
    ready = prepared if frames.live else Prefetch(prepared, AHEAD)
    bar = tqdm(total=frames.total, unit="frame", dynamic_ncols=True, disable=None)
    selection = Selection(
        conf=options.conf_thres,
        iou=options.iou_thres,
        agnostic=options.agnostic_nms,
        max_det=options.max_det,
        classes=tuple(options.classes) if options.classes else None,
    )
    try:
        with closing(ready), bar, torch.inference_mode():
            waiting = time.perf_counter()
            for group in batches(ready, options.batch_size):
                tally.reading += time.perf_counter() - waiting
                if isinstance(group, Failure):
                    tally.failures.append(group.reason)
                    bar.write(f"skipped: {group.reason}", file=sys.stderr)
                else:
                    for item, found, seconds in detect(predictor, group, selection, tally):
                        recorder.add(seen(item, found, live=frames.live))
                        report(bar, item, found, seconds, names, options.print)
                waiting = time.perf_counter()
    except KeyboardInterrupt:
        tally.interrupted = True
    return tally


def detect(
    predictor: Predictor, group: list[Prepared], selection: Selection, tally: Tally
) -> list[tuple[Prepared, Detections, float]]:
    """Detections of a batch, with the seconds that one picture took in the network."""
    start = time.perf_counter()
    single = group[0].pixels[None]  # no copy
    images = torch.from_numpy(single if len(group) == 1 else np.stack([item.pixels for item in group]))
    outputs = predictor.forward(images)
    predictor.wait()
    middle = time.perf_counter()
    found = predictor.boxes(selection)(outputs, [item.fit for item in group])
    tally.network += middle - start
    tally.boxes += time.perf_counter() - middle
    tally.fitting += sum(item.seconds for item in group)
    tally.pictures += len(group)
    for each in found:
        tally.objects.update(each.class_ids.tolist())
    return [(item, each, (middle - start) / len(group)) for item, each in zip(group, found, strict=True)]


def seen(item: Prepared, found: Detections, *, live: bool) -> Seen:
    frame = item.frame
    if frame.video is None:
        return Seen(path=frame.path, picture=frame.picture, found=found)
    return Seen(
        path=frame.path,
        picture=frame.picture,
        found=found,
        index=frame.index,
        time_s=frame.time_s,
        fps=frame.video.fps,
        live=live,
    )


def report(bar: tqdm, item: Prepared, found: Detections, seconds: float, names: Sequence[str], style: str) -> None:
    """One line for a picture; video frames only move the bar, unless the original's lines are asked for."""
    frame = item.frame
    if style == "darknet":
        bar.write(f"{frame.path}: Predicted in {seconds * 1e3:f} milli-seconds.")
        for line in darknet_lines(found, names):
            bar.write(line)
    elif frame.video is None:
        width, height = item.fit.picture_wh
        bar.write(f"{frame.path}: {width}x{height} {found_text(found.class_ids, names)}, {seconds * 1e3:.1f} ms")
    bar.update()


def summary(tally: Tally, names: Sequence[str], writing: float, seconds: float) -> str:
    """Counts, and where the time of one picture went (stations run beside each other)."""
    many = [number for number, count in tally.objects.most_common() for _ in range(count)]
    head = (
        f"{tally.pictures} picture{'s' if tally.pictures != 1 else ''}: {found_text(np.array(many, int), names, NAMED)}"
    )
    if tally.failures:
        head += f"; {len(tally.failures)} could not be read"
    if tally.interrupted:
        head += "; interrupted"
    share = 1e3 / max(tally.pictures, 1)
    stations = {
        "waiting for pictures": tally.reading,
        "fitting": tally.fitting,
        "network": tally.network,
        "boxes": tally.boxes,
        "drawing and writing": writing,
    }
    split = ", ".join(f"{name} {value * share:.1f}" for name, value in stations.items())
    rate = tally.pictures / seconds if seconds else 0.0
    return f"{head}\n{seconds:.2f} s, {rate:.1f} pictures/s; ms for each: {split}"


if __name__ == "__main__":
    sys.exit(run_script(main))

"""Detect objects in images, folders, lists, videos, cameras and streams with a Darknet model, or classify them.

examples:
  python detect.py                                      run the shipped detector on sample images
  python detect.py --cfg yolov4.cfg --weights yolov4.weights --names coco.names --source street.jpg
  python detect.py --cfg my.cfg --weights my.weights --data my.data --source street.jpg --out found.jpg
  python detect.py --cfg my.cfg --weights my.weights --names my.names --source video.mp4 --save-json
  python detect.py --cfg my.cfg --weights my.weights --names my.names --source a.jpg clips "images/**"
  find . -name "*.jpg" | python detect.py --cfg my.cfg --weights my.weights --names my.names --source -
  python detect.py --cfg my.cfg --weights my.weights --names my.names --source list.txt --save-csv --no-save --resume
  python detect.py --cfg my.cfg --weights my.weights --names my.names --source 0 --view-img
  python detect.py --cfg my.cfg --weights my.weights --names my.names --source rtsp://camera/stream1 --no-save --save-csv
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.frames import Failure, Frames, frames_of, open_frames
from data.image import WRITABLE_SUFFIXES
from inference.first_look import SAMPLES, next_steps, with_shipped_model
from inference.journal import JOURNAL, Journal, identity_of, read_progress
from inference.model import ModelFlags
from inference.pipeline import predict_frames
from inference.predictor import Classifier, Model, NmsOptions, RunStatistics
from inference.recorder import Recorder, RecordFlags, require_screen, sizes_of_results
from inference.results import found_text
from utils.cli import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    StopRequest,
    above_zero,
    flags_of,
    options_from,
    run_script,
    script_parser,
    stop_request,
)
from utils.errors import InputError
from utils.files import exists, is_folder, latest_run, run_folder

logger = logging.getLogger(__name__)

LATEST = "latest"
NOT_OF_THE_RUN = ("source", "device", "batch_size", "view_img", "print", "project", "name", "exist_ok", "resume")
"""Flags that may differ when a run is resumed."""
MOST_NAMED = 10  # classes named in the summary
VIDEO_FILES = frozenset({".mp4", ".mov", ".mkv", ".avi"})  # written by --out
BOX_FLAGS = (
    *("save_txt", "save_conf", "save_json", "save_crop", "view_img", "out", "conf_thres", "iou_thres", "classes"),
    *("agnostic_nms", "max_det", "line_thickness", "hide_labels", "hide_conf", "fourcc"),
)
"""Flags that do not apply to classifiers."""


@dataclass(frozen=True, kw_only=True)
class DetectOptions(ModelFlags, RecordFlags):
    """The flags of detect.py."""

    source: tuple[str, ...]
    letter_box: int | None
    resize: str
    batch_size: int
    augment: bool
    conf_thres: float
    iou_thres: float
    classes: tuple[int | str, ...] | None
    agnostic_nms: bool
    max_det: int
    print: str
    project: str
    name: str
    exist_ok: bool
    resume: str | None


def parse_arguments(arguments: Sequence[str] | None) -> DetectOptions:
    parser = script_parser("detect.py", __doc__)
    add = flags_of(parser)
    ModelFlags.add(add)
    add("--data", dest="names", metavar="FILE", help="same as --names, for a .data file with 'names'")
    add(
        "--source",
        nargs="+",
        action="extend",
        default=[],
        metavar="SOURCE",
        help="images, videos, folders (FOLDER/** with subfolders), globs, .txt lists, - (a list on standard input), or a "
        "single camera number, rtsp:// or http:// URL",
    )
    add("--out", metavar="FILE", help="save the annotated image or video as FILE instead of in a run folder")
    add("--vid-stride", type=above_zero, default=1, metavar="N", help="use every Nth frame of a video")
    add("--conf-thres")
    add("--iou-thres")
    add("--classes", nargs="+", metavar="CLASS", help="keep only these classes, by name or id: --classes dog 2")
    add("--agnostic-nms", action="store_true", help="NMS across classes")
    for shared in ("--max-det", "--letter-box", "--resize", "--augment", "--batch-size"):
        add(shared)
    add("--save-txt")
    add("--save-conf")
    add("--save-json", action="store_true", help="save results.json: COCO format plus file_name, frame and time_s")
    add("--save-csv", action="store_true", help="save results.csv: one row per detection, written as they are found")
    add("--save-crop", action="store_true", help="save each object as crops/<class>/*.jpg")
    add("--no-save", help="do not save annotated images and videos")
    add("--view-img", action="store_true", help="show the results in a window")
    add(
        "--line-thickness",
        type=above_zero,
        metavar="PX",
        help="line thickness of boxes; default: in proportion to the image",
    )
    add("--hide-labels", action="store_true", help="draw boxes only")
    add("--hide-conf", action="store_true", help="draw labels without scores")
    add("--fourcc", help="codec of saved videos; default: H.264 if the package av is installed, else mp4v")
    add("--print", choices=("short", "darknet"), default="short", help="darknet: print as the original does")
    add("--project", default="runs/detect")
    add("--name")
    add("--exist-ok")
    text = "continue an interrupted run: repeat its command with this flag; default: the latest such run in --project"
    add("--resume", nargs="?", const=LATEST, metavar="FOLDER", help=text)
    return options_from(DetectOptions, parser, arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if options.view_img:
        require_screen("--view-img")
    model = with_shipped_model(options).open_named()
    check_flags(options, model)
    class_ids = None if options.classes is None else model.class_ids(options.classes, "--classes")
    source = options.source
    if not source:
        source = (os.path.relpath(SAMPLES),)
        print(f"no --source: using the images and the clip in {source[0]}")
    frames = open_frames(source, vid_stride=options.vid_stride)
    folder, journal = None, None
    with ExitStack() as stack:
        stack.callback(lambda: frames.close())
        if options.out is not None:
            check_out(Path(options.out), frames)
        if options.resume is not None:
            folder, journal = unfinished_run(options, frames)
            frames.close()
            frames = frames_of(frames.entries[journal.after.done :], frames.source, options.vid_stride)
        elif options.in_folder:
            folder = run_folder(options.project, options.name, exist_ok=options.exist_ok)
            stack.callback(remove_empty, folder)
            if len(frames.entries) > 1:
                journal = Journal(folder, frames.entries, identity(options, frames))
        start = time.perf_counter()
        if journal is not None:
            stack.push(journal)
        request = stack.enter_context(stop_request(frames.stop))
        with Recorder(folder or Path(), options, journal, classifier=isinstance(model, Classifier)) as recorder:
            statistics = run(model, frames, recorder, options, class_ids, request)
        if journal is not None and not statistics.interrupted:
            journal.remove()
    print(summary(statistics, model, recorder.seconds, time.perf_counter() - start))
    for saved in (recorder.out, folder):
        if saved is not None and saved.exists():
            print(f"Results saved to {saved}")
    if options.cfg is None and options.weights is None and not options.source:
        print(f"\n{next_steps()}")
    if statistics.interrupted:
        if journal is not None:
            print("to continue, repeat the command with --resume")
        return EXIT_INTERRUPTED
    failed = statistics.failures or (journal is not None and journal.after.failed)
    return EXIT_FAILED if failed else EXIT_OK


def remove_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()


def identity(options: DetectOptions, frames: Frames) -> dict[str, Any]:
    """Return what a resumed run must share with its first part: flags, model files, images and videos."""
    kept = {key: value for key, value in dataclasses.asdict(options).items() if key not in NOT_OF_THE_RUN}
    files = [Path(each) for each in (options.cfg, options.weights) if each is not None]
    sizes = {f"size of {path}": path.stat().st_size for path in files if path.is_file()}
    return identity_of(frames.entries, kept | sizes)


def unfinished_run(options: DetectOptions, frames: Frames) -> tuple[Path, Journal]:
    """Return the run folder that --resume names, and its journal. Raises InputError."""
    latest = options.resume == LATEST
    folder = latest_run(options.project, JOURNAL, "unfinished run") if latest else Path(options.resume or "")
    own = identity(options, frames)
    journal = Journal(folder, frames.entries, own, read_progress(folder, own, sizes_of_results(folder)))
    logger.info("%s: %d of %d images and videos are finished", folder, journal.after.done, len(frames.entries))
    return folder, journal


def check_flags(options: DetectOptions, model: Model) -> None:
    """Raise InputError for flags that exclude each other or do not apply to a classifier."""
    if isinstance(model, Classifier):
        usual = parse_arguments([])
        for flag in BOX_FLAGS:
            if getattr(options, flag) != getattr(usual, flag):
                what = options.cfg or options.weights
                raise InputError(f"--{flag.replace('_', '-')}: {what} is a classifier, which finds no boxes")
    if options.out is not None and options.no_save:
        raise InputError("--out: cannot be combined with --no-save")


def check_out(out: Path, frames: Frames) -> None:
    """Raise InputError unless the one image or video of `frames` can be saved as `out`."""
    if len(frames.entries) > 1:
        raise InputError(
            f"--out {out}: the source has {len(frames.entries)} images and videos, expected one; see --project"
        )
    suffixes = VIDEO_FILES if frames.has_video else WRITABLE_SUFFIXES
    if out.suffix.lower() not in suffixes:
        kind = "a video" if frames.has_video else "an image"
        raise InputError(f"--out {out}: the source is {kind}, expected a file name with {', '.join(sorted(suffixes))}")
    if is_folder(out):
        raise InputError(f"--out {out}: is a folder, expected a file name")
    if exists(out) and any(exists(each) and out.samefile(each) for each in frames.entries):
        raise InputError(f"--out {out}: is the source itself, expected another file name")


def run(
    model: Model,
    frames: Frames,
    recorder: Recorder,
    options: DetectOptions,
    class_ids: tuple[int, ...] | None,
    request: StopRequest,
) -> RunStatistics:
    """Record and print every result until the source ends or a stop is requested."""
    statistics = RunStatistics()
    nms = NmsOptions(
        conf=options.conf_thres,
        iou=options.iou_thres,
        agnostic=options.agnostic_nms,
        max_det=options.max_det,
        classes=class_ids,
    )
    results = predict_frames(
        model,
        frames,
        nms,
        letter_box=None if options.letter_box is None else bool(options.letter_box),
        kernel=options.resize,
        batch_size=options.batch_size,
        augment=options.augment,
        statistics=statistics,
    )
    with closing(results), tqdm(total=frames.total, unit="frame", dynamic_ncols=True, disable=None) as bar:
        for result in results:
            bar.update()
            recorder.add(result)
            if isinstance(result, Failure):
                bar.write(f"skipped: {result.reason}", file=sys.stderr)
            else:
                for line in result.lines(options.print):
                    bar.write(line)
            if request.made:
                break
    statistics.interrupted = request.made
    return statistics


def summary(statistics: RunStatistics, model: Model, writing: float, seconds: float) -> str:
    """Return counts, the engine, and the time of each stage per image; the stages run in parallel."""
    count = statistics.images
    images = f"{count} image{'s' if count != 1 else ''}"
    if isinstance(model, Classifier):
        head = f"{images} classified"
    else:
        head = f"{images}: {found_text(statistics.objects, model.names, MOST_NAMED)}"
    if statistics.failures:
        head += f"; {len(statistics.failures)} could not be read"
    if statistics.interrupted:
        head += "; interrupted"
    stages = statistics.milliseconds() | {"drawing and writing": 1e3 * writing / max(count, 1)}
    times = ", ".join(f"{stage} {value:.1f}" for stage, value in stages.items())
    return f"{head}\n{seconds:.2f} s, {count / seconds:.1f} images/s with {model.engine}; ms per image: {times}"


if __name__ == "__main__":
    sys.exit(run_script(main))

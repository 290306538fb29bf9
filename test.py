"""Measure detection quality and speed, or look a data set over.

examples:
  python test.py --cfg yolov4.cfg --weights yolov4.weights --data coco.data
  python test.py --cfg my.cfg --weights my.weights --data bccd/ --split test --print darknet
  python test.py --task doctor --data my.data
  python test.py --task study --cfg my.cfg --weights my.weights --data my.data --img-size 320 416 512
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.annotations import Dataset
from data.doctor import Diagnosis, examine, full_text, report
from data.exam import Exam, make_exam
from data.image import read_image
from data.picture_loader import PictureLoader
from data.sources import open_data
from engine.evaluate import Pass, evaluate
from engine.measure import measure, write_metrics, write_plots
from engine.metrics.darknet import NMS_THRESH, POINTS, SCORE_THRESH
from engine.metrics.report import Metrics, coco_text, darknet_text, table
from models.backends.choice import BACKENDS, Run, open_predictor
from models.detector import Selection
from models.formats.files import Reading
from models.predictor import Predictor
from utils.arguments import above_zero, share
from utils.cli import EXIT_OK, run_script
from utils.compare import comparison, save_picture
from utils.device import select_device
from utils.errors import InputError, RunError
from utils.files import run_folder, write_text
from utils.plot_data import plot_labels
from utils.plot_metrics import plot_study
from utils.resize import KERNELS
from utils.results import label_text
from utils.truth import Truth

logger = logging.getLogger(__name__)

WORST = 8
STUDY_CONFIDENCES = (0.001, 0.01, 0.1, 0.25)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="test.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cfg", help="Darknet cfg file; .pt, .safetensors and exported models have theirs inside")
    add("--weights", help=".weights, .pt, .safetensors, .onnx, .xml or .torchscript file")
    add("--backend", choices=BACKENDS, help="what runs the model; default: by the kind of file")
    add("--ema", action="store_true", help="the averages of a training run in the place of its weights")
    add("--trust-pickle", action="store_true", help="read .pt by pickle: it runs whatever code the file asks for")
    add("--data", required=True, help=".data, .yaml, COCO .json, a Pascal VOC folder, a folder or list of pictures")
    add("--names", help="names file to use in place of the data set's own")
    add("--split", help="split of the data set, default val (doctor: all splits)")
    add("--task", choices=TASKS, default="val", help="val: measure; doctor: check the data set; study: sweep sizes and "
        "confidences; speed: time only")  # fmt: skip
    add("--batch-size", type=above_zero, default=16, help="pictures at a time, default 16")
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
    add("--save-txt", action="store_true", help="write a text file of boxes for each picture")
    add("--save-conf", action="store_true", help="with the score at the end of each line of --save-txt")
    add("--no-plots", action="store_true", help="numbers only: no curves and no pictures")
    add("--device", default="", help="cpu, mps, or a CUDA index; default: a GPU if there is one")
    add("--half", action="store_true", help="16-bit floats, on a GPU")
    add("--single-cls", action="store_true", help="treat all classes as one")
    add("--augment", action="store_true", help="look at the mirrored picture as well")
    add("--verbose", action="store_true", help="also classes without objects, and every finding of the doctor")
    add("--workers", type=above_zero, default=4, help="threads that read pictures, default 4")
    add("--project", default="runs/test", help="folder of the run folders, default runs/test")
    add("--name", default="exp", help="name of the run folder, default exp, exp2, ...")
    add("--exist-ok", action="store_true", help="write into an existing run folder")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if options.task != "doctor" and not (options.cfg or options.weights):
        raise InputError(f"--task {options.task} needs --cfg")
    return TASKS[options.task](options)


def doctor(options: argparse.Namespace) -> int:
    """Look every split over, without a network."""
    dataset = open_data(options.data, options.split, names=options.names)
    found = [_diagnose(dataset, split, options) for split in dataset.splits]
    folder = run_folder(options.project, options.name, exist_ok=options.exist_ok)
    for diagnosis in found:
        _save_diagnosis(folder, diagnosis, options)
    print(f"Results saved to {folder}")
    return EXIT_OK


def _diagnose(dataset: Dataset, split: str, options: argparse.Namespace) -> Diagnosis:
    found = examine(dataset, split, workers=options.workers)
    print(report(found, examples=sys.maxsize if options.verbose else 3))
    return found


def _save_diagnosis(folder: Path, found: Diagnosis, options: argparse.Namespace) -> None:
    write_text(folder / f"doctor_{found.split}.txt", full_text(found))
    if _plots(options):
        path = folder / f"labels_{found.split}.png"
        plot_labels(path, found.names, found.class_counts, found.cxcywh_rel, found.sizes_wh, found.per_image)


def _plots(options: argparse.Namespace) -> bool:
    if options.no_plots:
        return False
    if importlib.util.find_spec("matplotlib") is None:
        logger.warning("no plots: they need matplotlib (pip install matplotlib)")
        return False
    return True


def _predictor(options: argparse.Namespace, size: Sequence[int]) -> Predictor:
    """The network at an input size: nothing (the cfg's), a side, or width and height."""
    device = select_device(options.device)
    width, height = (size[0], size[-1]) if size else (None, None)
    if options.weights is None:
        logger.warning("no --weights: the network is random")
    if options.half and device.type == "cpu":
        raise InputError("--half: 16-bit floats are for a GPU, this run is on the cpu")
    reading = Reading(
        cfg=options.cfg,
        device=device,
        width=width,
        height=height,
        ema=options.ema,
        trust_pickle=options.trust_pickle,
    )
    run = Run(
        backend=options.backend,
        reading=reading,
        half=options.half,
        mirrored=options.augment,
        single=options.single_cls,
    )
    return open_predictor(options.weights, run).predictor


def _selection(options: argparse.Namespace, conf: float) -> Selection:
    return Selection(conf=conf, iou=options.iou_thres, agnostic=options.single_cls, list_above=SCORE_THRESH)


def _loader(options: argparse.Namespace, predictor: Predictor, images: Sequence[Path]) -> PictureLoader:
    plan = predictor.network.plan
    return PictureLoader(
        images,
        predictor.size_wh,
        letter_box=plan.net.letter_box if options.letter_box is None else bool(options.letter_box),
        channels=plan.input.channels,
        batch_size=options.batch_size,
        workers=options.workers,
        kernel=options.resize,
    )


def _run(
    options: argparse.Namespace, predictor: Predictor, images: Sequence[Path], confidences: Sequence[float]
) -> Pass:
    """Everything found in the pictures; Ctrl-C ends it early."""
    found = Pass()
    boxes = [predictor.boxes(_selection(options, conf)) for conf in confidences]
    loader = _loader(options, predictor, images)
    steps = evaluate(predictor.forward, boxes, loader, found, synchronize=predictor.wait)
    width, height = predictor.size_wh
    try:
        with tqdm(total=len(images), unit="img", desc=f"{width}x{height}") as bar:
            for count in steps:
                bar.update(count)
    except KeyboardInterrupt:
        found.interrupted = True
    return found


def _exam(options: argparse.Namespace, predictor: Predictor) -> tuple[Exam, Diagnosis]:
    """The data set, looked over by the doctor; without labels there is nothing to measure."""
    split = options.split or "val"
    dataset = open_data(options.data, split, names=options.names)
    exam = make_exam(
        dataset, split, predictor.detector.classes, options.cfg or options.weights, single=options.single_cls
    )
    diagnosis = _diagnose(dataset, split, options)
    if not diagnosis.labels:
        example = next((f": {finding}" for finding in diagnosis.findings if finding.kind == "labels missing"), "")
        raise InputError(f"{options.data}: no labels to measure against{example}")
    return exam, diagnosis


def validate(options: argparse.Namespace) -> int:
    """Measure quality and speed at one size and confidence."""
    confidence = _confidence(options)
    predictor = _predictor(options, _one_size(options))
    exam, diagnosis = _exam(options, predictor)
    folder = run_folder(options.project, options.name, exist_ok=options.exist_ok)
    found = _run(options, predictor, exam.images, [confidence])
    start = time.perf_counter()
    truths = [exam.truth(i, found.sizes_wh[i]) for i in found.order]
    image_ids = exam.image_ids(found.order)
    metrics, rows = measure(found.detections(0), truths, exam.names, image_ids, exam.category_ids)
    speed = found.milliseconds() | {"measuring": 1000 * (time.perf_counter() - start) / max(1, len(truths))}
    facts = _facts(options, exam, predictor, found) | {"conf_thres": confidence, "speed_ms": speed}
    write_metrics(folder, metrics, facts | {"findings": diagnosis.counts})
    if options.save_json:
        write_text(folder / "results.json", json.dumps(rows) + "\n")
    if options.save_txt:
        _save_labels(folder / "labels", exam, found, options.save_conf)
    _print_metrics(options, metrics)
    print(f"Speed: {_speed_text(speed)} a picture of {_by(predictor.size_wh)}")
    _save_diagnosis(folder, diagnosis, options)
    if _plots(options):
        write_plots(folder, metrics)
        _save_worst(folder / "worst", exam, found, truths, metrics)
    print(f"Results saved to {folder}")
    return _outcome(exam.images, found)


def _confidence(options: argparse.Namespace) -> float:
    if len(options.conf_thres) > 1:
        raise InputError(f"--conf-thres: found {len(options.conf_thres)} values, expected one (study takes several)")
    confidence = float(options.conf_thres[0]) if options.conf_thres else 0.001
    if confidence > SCORE_THRESH:
        logger.warning("--conf-thres %g: the original's mAP starts at %g", confidence, SCORE_THRESH)
    if options.iou_thres != NMS_THRESH:
        logger.warning("--iou-thres %g: the original's mAP is defined with %g", options.iou_thres, NMS_THRESH)
    return confidence


def _one_size(options: argparse.Namespace) -> list[int]:
    if len(options.img_size) > 2:
        raise InputError(f"--img-size: found {len(options.img_size)} numbers, expected one, or width and height")
    return list(options.img_size)


def _facts(options: argparse.Namespace, exam: Exam, predictor: Predictor, found: Pass) -> dict[str, Any]:
    """What was measured, on what, and whether all of it."""
    return {
        **{key: getattr(options, key) for key in ("cfg", "weights", "data", "split", "iou_thres", "letter_box")},
        "input": list(predictor.size_wh),
        "complete": len(found.order) == len(exam.images),
        "unreadable": {str(exam.images[i]): text for i, text in sorted(found.failures.items())},
    }


def _save_labels(folder: Path, exam: Exam, found: Pass, with_scores: bool) -> None:
    for i, detections in zip(found.order, found.detections(0), strict=True):
        text = label_text(detections, found.sizes_wh[i], with_scores=with_scores)
        write_text(folder / f"{exam.images[i].stem}.txt", text)


def _save_worst(folder: Path, exam: Exam, found: Pass, truths: Sequence[Truth], metrics: Metrics) -> None:
    """Labels beside predictions for the pictures that lose most recall."""
    confusion, detections = metrics.confusion, found.detections(0)
    for place, i in enumerate(confusion.worst(WORST).tolist(), 1):
        path = exam.images[found.order[i]]
        sure = detections[i].scores > np.float32(confusion.conf_thresh)
        hits, right = confusion.hits[i], confusion.right[i][sure]
        sheet = comparison(read_image(path, 3), truths[i], detections[i].select(sure), exam.names, hits, right)
        save_picture(folder / f"{place}_{path.stem}.jpg", sheet)


def _print_metrics(options: argparse.Namespace, metrics: Metrics) -> None:
    if options.print == "darknet":
        print(darknet_text(metrics.darknet, metrics.names, options.points))
    else:
        print(f"{table(metrics, every_class=options.verbose)}\n{coco_text(metrics.coco)}")


def _speed_text(speed: dict[str, float]) -> str:
    return ", ".join(f"{what.replace('_', ' ')} {value:.1f} ms" for what, value in speed.items())


def _by(size_wh: Sequence[int]) -> str:
    return f"{size_wh[0]}x{size_wh[1]}"


def _outcome(images: Sequence[Path], found: Pass) -> int:
    if found.interrupted:
        print(f"{len(found.order)} of {len(images)} pictures were measured", file=sys.stderr)
        raise KeyboardInterrupt
    if found.failures:
        first = found.failures[min(found.failures)]
        raise RunError(
            f"{len(found.failures)} of {len(images)} pictures could not be read, the results are those of the others; "
            f"the first: {first}"
        )
    return EXIT_OK


def study(options: argparse.Namespace) -> int:
    """Quality against latency over input sizes and confidences."""
    confidences = options.conf_thres or STUDY_CONFIDENCES
    cfg_size = 0 if options.img_size else _predictor(options, []).size_wh[0]
    sizes = options.img_size or [cfg_size * k // 4 // 32 * 32 for k in (2, 3, 4, 5)]
    rows: list[dict[str, Any]] = []
    predictor = _predictor(options, sizes[:1])
    exam, _ = _exam(options, predictor)
    folder = run_folder(options.project, options.name, exist_ok=options.exist_ok)
    for size in sizes:
        predictor = _predictor(options, [size])
        found = _run(options, predictor, exam.images, confidences)
        truths = [exam.truth(i, found.sizes_wh[i]) for i in found.order]
        for way, conf in enumerate(confidences):
            detections = found.detections(way)
            metrics, _ = measure(detections, truths, exam.names, exam.image_ids(found.order), exam.category_ids)
            rows.append(_study_row(size, conf, metrics, found.milliseconds(way)))
            print(_study_text(rows[-1]))
        write_text(folder / "study.json", json.dumps(rows, indent=1) + "\n")
        if found.interrupted:
            break
    if _plots(options):
        plot_study(folder / "study.png", rows)
    print(f"Results saved to {folder}")
    return _outcome(exam.images, found)


def _study_row(size: int, conf: float, metrics: Metrics, speed: dict[str, float]) -> dict[str, Any]:
    return {
        "size": size,
        "conf_thres": conf,
        "ap": metrics.coco.statistics["AP"],
        "ap50": metrics.coco.statistics["AP50"],
        "darknet_map_area": metrics.darknet.mean_average_precision(),
        "ms": speed["network"] + speed["boxes"],
        "speed_ms": speed,
    }


def _study_text(row: dict[str, Any]) -> str:
    return (
        f"{row['size']:>5} px, confidence {row['conf_thres']:<5g}: AP {row['ap']:.4f}, AP50 {row['ap50']:.4f}, "
        f"Darknet {row['darknet_map_area']:.4f}, network and boxes {row['ms']:.1f} ms"
    )


def speed(options: argparse.Namespace) -> int:
    """Time only: no labels are read, nothing is measured but the clock."""
    predictor = _predictor(options, _one_size(options))
    split = options.split or "val"
    images = open_data(options.data, split, names=options.names).splits[split]
    if not images:
        raise InputError(f"{options.data}: no pictures in split '{split}'")
    folder = run_folder(options.project, options.name, exist_ok=options.exist_ok)
    start = time.perf_counter()
    found = _run(options, predictor, images, [_confidence(options)])
    rate = len(found.order) / (time.perf_counter() - start)
    times = found.milliseconds()
    facts = {"cfg": options.cfg, "input": list(predictor.size_wh), "batch_size": options.batch_size}
    facts |= {"device": str(predictor.device), "pictures": len(found.order), "pictures_per_second": rate}
    write_text(folder / "speed.json", json.dumps(facts | {"speed_ms": times}, indent=1) + "\n")
    print(f"Speed: {_speed_text(times)} a picture of {_by(predictor.size_wh)}; {rate:.1f} pictures a second in all")
    print(f"Results saved to {folder}")
    return _outcome(images, found)


TASKS = {"val": validate, "doctor": doctor, "study": study, "speed": speed}

if __name__ == "__main__":
    sys.exit(run_script(main))

"""Export a network to ONNX, OpenVINO or TorchScript; each file is run and compared with the network before it is kept.

examples:
  python export.py --cfg yolov4.cfg --weights yolov4.weights --names coco.names --include onnx openvino
  python export.py --weights best.pt --include onnx --dynamic batch size --opset 18
  python export.py --cfg yolov4.cfg --weights yolov4.weights --include onnx --output nms --conf-thres 0.3
  python export.py --cfg yolov4.cfg --weights yolov4.weights --include openvino --int8 --data coco.data
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from data.formats.darknet import read_names
from evaluation.int8 import Int8Data, Quality, calibrate, quality
from inference.backends import ExportedModel, OnnxRuntimeSession, OpenVinoSession, Session, TorchScriptSession
from inference.model import model_of
from models.export.build import OUTPUTS, ExportOptions
from models.export.int8 import Quantization
from models.export.onnx import save_onnx
from models.export.openvino import save_openvino
from models.export.torchscript import save_torchscript
from models.export.verify import HALF_TOLERANCE, TOLERANCE, Expected, difference, expected, sorted_rows
from models.fit import classes_of
from models.formats.files import LoadedModel, LoadOptions, load_model
from models.network import Network
from utils.cli import (
    EXIT_OK,
    above_zero,
    flags_of,
    fraction,
    input_size,
    options_from,
    positive,
    run_script,
    script_parser,
)
from utils.errors import InputError, RunError
from utils.files import staged

logger = logging.getLogger(__name__)

CALIBRATION_IMAGES, MAX_DROP = 200, 0.01
_CPU = torch.device("cpu")

Saver = Callable[[Network, Path, ExportOptions, tuple[str, ...]], None]
Opener = Callable[[Path, torch.device], Session]

# Format -> extension, writer, and the engine that verifies the file.
FORMATS: dict[str, tuple[str, Saver, Opener]] = {
    "onnx": (".onnx", save_onnx, OnnxRuntimeSession),
    "openvino": (".xml", save_openvino, OpenVinoSession),
    "torchscript": (".torchscript", save_torchscript, TorchScriptSession),
}


@dataclass(frozen=True, kw_only=True)
class ExportFlags:
    """The flags of export.py. output: None: "boxes" for detectors, "raw" for classifiers."""

    cfg: str | None
    weights: str
    names: str | None
    include: tuple[str, ...]
    out: str | None
    img_size: tuple[int, ...]
    batch_size: int
    dynamic: tuple[str, ...]
    output: Literal["raw", "boxes", "nms"] | None
    opset: int
    half: bool
    int8: bool
    data: str | None
    calib_images: int
    max_drop: float
    conf_thres: float | None
    iou_thres: float | None
    max_det: int | None
    tolerance: float | None
    no_check: bool
    ema: bool
    trust_pickle: bool


def parse_arguments(arguments: Sequence[str] | None) -> ExportFlags:
    parser = script_parser("export.py", __doc__)
    add = flags_of(parser)
    add(
        "--cfg",
        help="Darknet cfg file; not needed for shipped models, nor for .pt and .safetensors files of this program",
    )
    add("--weights", required=True, help=".weights, .pt or .safetensors file, or the name of a shipped model")
    add(
        "--names",
        help="class names to store in the model, one per line; default: those in the .pt or .safetensors file",
    )
    add("--include", nargs="+", choices=FORMATS, default=("onnx",), help="formats to write, default onnx")
    add("--out", metavar="FILE", help="output path without extension; default: that of --weights")
    add("--img-size")
    add("--batch-size")
    add("--dynamic", nargs="+", choices=("batch", "size"), default=(), help="dimensions that may vary at run time")
    text = (
        "raw: outputs of the heads (default for classifiers); boxes: all boxes and scores (default for detectors); "
        "nms: boxes after NMS"
    )
    add("--output", choices=OUTPUTS, help=text)
    add("--opset", type=int, default=ExportOptions.opset, metavar="N", help="ONNX opset, default %(default)s")
    add("--half", help="use 16-bit floats internally; inputs and outputs stay 32-bit")
    text = "8-bit convolutions, calibrated and evaluated on --data; only for onnx and openvino"
    add("--int8", action="store_true", help=text)
    add("--data", help="dataset for --int8: calibrates on its train split and evaluates on val")
    text = "number of images to calibrate --int8 on, evenly spread over the train split, default %(default)s"
    add("--calib-images", type=above_zero, default=CALIBRATION_IMAGES, metavar="N", help=text)
    text = "largest accepted loss of mAP (classifiers: top-1) with --int8, from 0 to 1, default %(default)s"
    add("--max-drop", type=fraction, default=MAX_DROP, metavar="D", help=text)
    add("--conf-thres", default=None, help="confidence threshold for --output nms, default 0.25")
    add("--iou-thres", default=None, help="NMS IoU threshold for --output nms, default 0.45")
    add("--max-det", default=None, help="maximum number of boxes per class for --output nms, default 300")
    add(
        "--tolerance",
        type=positive,
        metavar="X",
        help=f"largest accepted difference, default {TOLERANCE:g}, with --half {HALF_TOLERANCE:g}",
    )
    add("--no-check", action="store_true", help="do not run the exported model and compare it with the network")
    add("--ema")
    add("--trust-pickle")
    return options_from(ExportFlags, parser, arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    flags = parse_arguments(arguments)
    _check_int8(flags)
    network, names = _network(flags)
    options = _options(flags, network)
    _warn_of_suppression(network, options)
    base = Path(flags.out or Path(flags.weights).with_suffix(""))
    if not base.name:
        raise InputError(f"--out {flags.out}: is a folder, expected a file name without extension")
    paths = {kind: base.with_name(base.name + FORMATS[kind][0]) for kind in flags.include}
    if flags.int8:
        _export_int8(flags, network.fold(), options, names, paths)
        return EXIT_OK
    checks = [] if flags.no_check else expected(network, options)
    network.fold()
    for kind, path in paths.items():
        _, save, opener = FORMATS[kind]
        with staged(path) as target:
            save(network, target, options, names)
            error = _largest_difference(target, opener, checks)
            _judge(path, error, flags.tolerance or (HALF_TOLERANCE if flags.half else TOLERANCE))
        verdict = "not verified" if error is None else f"largest difference from the network {error:.2g}"
        print(f"{path}: {_megabytes(path):.1f} MB, {verdict}")
    return EXIT_OK


def _export_int8(
    flags: ExportFlags, network: Network, options: ExportOptions, names: tuple[str, ...], paths: dict[str, Path]
) -> None:
    """Write 8-bit models, each only if its measured quality is close enough to that of the network."""
    assert flags.data is not None
    data = Int8Data.open(flags.data, flags.calib_images, names=flags.names)
    wanted = quality(model_of(copy.deepcopy(network), _CPU), data)
    ranges = calibrate(network, options, data)
    for kind, path in paths.items():
        _, save, opener = FORMATS[kind]
        with staged(path) as target:
            # Measured without NMS inside, which would drop low scores that count for mAP.
            measured = replace(options, outputs="raw", int8=Quantization(ranges=ranges))
            save(network, target, measured, names)
            found = quality(model_of(ExportedModel(opener(target, _CPU), str(target)), _CPU), data)
            _judge_quality(path, wanted, found, flags)
            report = {"data": data.path, "images": len(data.images), "metric": found.metric}
            report |= {"float": round(wanted.value, 4), "int8": round(found.value, 4)}
            save(network, target, replace(options, int8=Quantization(ranges=ranges, report=report)), names)
            opener(target, _CPU)
        change = f"{wanted.metric} {wanted.value:.2%}, in 8 bits {found.value:.2%}"
        print(f"{path}: {_megabytes(path):.1f} MB, {change}, calibrated on {len(data.images)} images")


def _judge_quality(path: Path, wanted: Quality, found: Quality, flags: ExportFlags) -> None:
    if wanted.value - found.value > flags.max_drop:
        raise RunError(
            f"{path}: is not written: 8 bits lower {wanted.metric} from {wanted.value:.2%} to {found.value:.2%}, by more than "
            f"--max-drop {flags.max_drop:g}; calibrate on more images (--calib-images), or accept a larger --max-drop"
        )


def _check_int8(flags: ExportFlags) -> None:
    """Raise InputError for flags that exclude --int8 or require it."""
    if not flags.int8:
        if flags.data is not None:
            logger.warning("--data has no effect without --int8")
        return
    if flags.data is None:
        raise InputError("--int8: expected --data, a dataset to calibrate and measure on")
    if "torchscript" in flags.include:
        raise InputError("--int8: cannot be written as torchscript, expected --include onnx or openvino")
    for flag, given in (("--half", flags.half), ("--no-check", flags.no_check), ("--tolerance", flags.tolerance)):
        if given:
            raise InputError(f"--int8 and {flag} cannot be combined: 8-bit models are judged by their mAP (--max-drop)")


def _options(flags: ExportFlags, network: Network) -> ExportOptions:
    given = {"conf": flags.conf_thres, "iou": flags.iou_thres, "max_det": flags.max_det}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if chosen and flags.output != "nms":
        logger.warning("--conf-thres, --iou-thres and --max-det have no effect without --output nms")
    return ExportOptions(
        outputs=flags.output or ("boxes" if network.plan.box_heads else "raw"),
        opset=flags.opset,
        batch=None if "batch" in flags.dynamic else flags.batch_size,
        dynamic_size="size" in flags.dynamic,
        half=flags.half,
        **chosen,
    )


def _network(flags: ExportFlags) -> LoadedModel:
    width, height = input_size(flags.img_size) or (None, None)
    reading = LoadOptions(cfg=flags.cfg, width=width, height=height, ema=flags.ema, trust_pickle=flags.trust_pickle)
    network, names = load_model(flags.weights, reading)
    names = read_names(flags.names) if flags.names else names
    if network.plan.box_heads:
        classes = classes_of(network.plan)
        if names and len(names) != classes:
            place = flags.names or flags.weights
            raise InputError(f"{place}: has {len(names)} names, {network.plan.cfg.path} has classes={classes}")
    elif flags.output not in (None, "raw"):
        raise InputError(f"{network.plan.cfg.path}: has no boxes, expected --output raw")
    return LoadedModel(network, names)


def _warn_of_suppression(network: Network, options: ExportOptions) -> None:
    if options.outputs != "nms":
        return
    kind = network.plan.box_sections[-1].suppression()[0]
    if kind != "default":
        logger.warning("the cfg has nms_kind=%s, but NMS inside the model compares plain IoU", kind)


def _largest_difference(path: Path, opener: Opener, checks: Sequence[Expected]) -> float | None:
    if not checks:
        return None
    model = ExportedModel(opener(path, _CPU), str(path))
    errors = []
    for check in checks:
        found = [each.numpy() for each in model(torch.from_numpy(check.images))]
        wanted = check.outputs
        if model.metadata.outputs == "nms":
            found, wanted = [sorted_rows(found[0].reshape(-1, 7))], [sorted_rows(wanted[0])]
        errors.append(difference(found, wanted, model.metadata.outputs))
    return max(errors)


def _judge(path: Path, error: float | None, limit: float) -> None:
    if error is not None and not error <= limit:
        raise RunError(
            f"{path}: is not written: its outputs differ from the network's by {error:.2g}, more than {limit:g}"
        )


def _megabytes(path: Path) -> float:
    files = (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,)
    return sum(file.stat().st_size for file in files) / 1e6


if __name__ == "__main__":
    sys.exit(run_script(main))

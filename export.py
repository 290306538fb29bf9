"""Write a network for other engines: ONNX, OpenVINO, TorchScript; each is run at once and compared with the network.

examples:
  python export.py --cfg yolov4.cfg --weights yolov4.weights --names coco.names --include onnx openvino
  python export.py --weights best.pt --include onnx --dynamic batch size --opset 18
  python export.py --cfg yolov4.cfg --weights yolov4.weights --include onnx --output nms --conf-thres 0.3
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from data.formats.darknet import read_names
from inference.backends import OnnxRuntimeSession, OpenVinoSession, Session, TorchScriptSession
from inference.detector import Detector
from inference.exported import ExportedModel
from models.export.build import OUTPUTS, ExportOptions
from models.export.onnx import save_onnx
from models.export.openvino import save_openvino
from models.export.torchscript import save_torchscript
from models.export.verify import HALF_TOLERANCE, TOLERANCE, Expected, difference, expected, sorted_rows
from models.formats.files import LoadedModel, LoadOptions, load_model
from models.network import Network
from utils.cli import EXIT_OK, above_zero, positive, run_script, script_parser, share
from utils.errors import InputError, RunError
from utils.files import staged

logger = logging.getLogger(__name__)

Saver = Callable[[Network, Path, ExportOptions, tuple[str, ...]], None]
Opener = Callable[[Path, torch.device], Session]

# Format -> extension, writer, and the engine that verifies what was written.
FORMATS: dict[str, tuple[str, Saver, Opener]] = {
    "onnx": (".onnx", save_onnx, OnnxRuntimeSession),
    "openvino": (".xml", save_openvino, OpenVinoSession),
    "torchscript": (".torchscript", save_torchscript, TorchScriptSession),
}


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = script_parser("export.py", __doc__)
    add = parser.add_argument
    add("--cfg", help="cfg file; .pt and .safetensors files written by this program have theirs inside")
    add("--weights", required=True, metavar="FILE", help=".weights, .pt or .safetensors")
    add("--names", help="names file to store in the model; default: those inside .pt or .safetensors")
    add("--include", nargs="+", choices=FORMATS, default=["onnx"], help="formats to write, default onnx")
    add("--out", metavar="FILE", help="path without extension; default: the weights' name, in the current folder")
    add(
        "--img-size",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="input size, or width height; default: the cfg's",
    )
    add("--batch-size", type=int, default=1, help="images at a time, default 1")
    add("--dynamic", nargs="+", choices=("batch", "size"), default=[], help="what may change from run to run")
    add("--output", choices=OUTPUTS, help="raw: heads as in the network (default of classifiers); boxes: all boxes "
        "and scores (default); nms: boxes that are left after suppression")  # fmt: skip
    add("--opset", type=int, default=ExportOptions.opset, help=f"of ONNX, default {ExportOptions.opset}")
    add("--half", action="store_true", help="16-bit floats inside; input and outputs stay in 32")
    add("--conf-thres", type=share, help="least score for --output nms, default 0.25")
    add("--iou-thres", type=share, help="overlap for --output nms, default 0.45")
    add("--max-det", type=above_zero, help="most boxes of a class for --output nms, default 300")
    add("--tolerance", type=positive, help=f"largest difference, default {TOLERANCE:g}, with --half {HALF_TOLERANCE:g}")
    add("--no-check", action="store_true", help="write without running the result")
    add("--ema", action="store_true", help="the averages of a training run in the place of its weights")
    add("--trust-pickle", action="store_true", help="read .pt by pickle: it runs whatever code the file asks for")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    _refuse_sizes(options)
    network, names = _network(options)
    settings = _settings(options)
    _warn_of_suppression(network, settings)
    checks = [] if options.no_check else expected(network, settings)
    network.fold()
    base = Path(options.out or Path(options.weights).stem)
    for kind in options.include:
        suffix, save, opener = FORMATS[kind]
        path = base.with_name(base.name + suffix)
        with staged(path) as target:
            save(network, target, settings, names)
            error = _largest_difference(target, opener, checks)
            _judge(path, error, options)
        print(f"{path}: {_megabytes(path):.1f} MB, {_verdict(error)}")
    return EXIT_OK


def _refuse_sizes(options: argparse.Namespace) -> None:
    if options.batch_size < 1 or any(size < 1 for size in options.img_size) or len(options.img_size) > 2:
        raise InputError("--batch-size, --img-size: expected whole numbers above zero, of sizes one or two")


def _settings(options: argparse.Namespace) -> ExportOptions:
    chosen = {"conf": options.conf_thres, "iou": options.iou_thres, "max_det": options.max_det}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    if chosen and options.output != "nms":
        logger.warning("--conf-thres, --iou-thres and --max-det have no effect without --output nms")
    return ExportOptions(
        outputs=options.output,
        opset=options.opset,
        batch=None if "batch" in options.dynamic else options.batch_size,
        dynamic_size="size" in options.dynamic,
        half=options.half,
        **chosen,
    )


def _network(options: argparse.Namespace) -> LoadedModel:
    width, height = (options.img_size[0], options.img_size[-1]) if options.img_size else (None, None)
    reading = LoadOptions(
        cfg=options.cfg, width=width, height=height, ema=options.ema, trust_pickle=options.trust_pickle
    )
    network, names = load_model(options.weights, reading)
    names = read_names(options.names) if options.names else names
    options.output = options.output or ("boxes" if network.plan.box_heads else "raw")
    if options.output != "raw" or network.plan.box_heads:
        classes = Detector(network).classes
        if names and len(names) != classes:
            place = options.names or options.weights
            raise InputError(f"{place}: has {len(names)} names, {network.plan.cfg.path} has classes={classes}")
    return LoadedModel(network, names)


def _warn_of_suppression(network: Network, settings: ExportOptions) -> None:
    if settings.outputs != "nms":
        return
    kind = network.plan.box_sections[-1].suppression()[0]
    if kind != "default":
        logger.warning("the cfg asks for nms_kind=%s, the suppression inside the model compares plain IoU", kind)


def _largest_difference(path: Path, opener: Opener, checks: Sequence[Expected]) -> float | None:
    if not checks:
        return None
    model = ExportedModel(opener(path, torch.device("cpu")), str(path))
    errors = []
    for check in checks:
        found = [each.numpy() for each in model(torch.from_numpy(check.images))]
        wanted = check.outputs
        if model.metadata.outputs == "nms":
            found, wanted = [sorted_rows(found[0].reshape(-1, 7))], [sorted_rows(wanted[0])]
        errors.append(difference(found, wanted, model.metadata.outputs))
    return max(errors)


def _judge(path: Path, error: float | None, options: argparse.Namespace) -> None:
    limit = options.tolerance or (HALF_TOLERANCE if options.half else TOLERANCE)
    if error is not None and not error <= limit:
        raise RunError(
            f"{path}: is not written, its outputs differ from the network's by {error:.2g}, more than {limit:g}"
        )


def _verdict(error: float | None) -> str:
    return "not verified" if error is None else f"largest difference from the network {error:.2g}"


def _megabytes(path: Path) -> float:
    files = (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,)
    return sum(file.stat().st_size for file in files) / 1e6


if __name__ == "__main__":
    sys.exit(run_script(main))

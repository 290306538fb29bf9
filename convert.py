"""Turn one file format into another.

examples:
  python convert.py weights --cfg yolov4.cfg --weights yolov4.weights --out yolov4.pt
  python convert.py weights --weights yolov4.safetensors --out yolov4.weights --out-cfg yolov4.cfg
  python convert.py partial --cfg yolov4.cfg --weights yolov4.weights --layers 137
  python convert.py fold --cfg yolov4.cfg --weights yolov4.weights --out folded.weights --out-cfg folded.cfg
  python convert.py compare yolov4.weights yolov4.onnx --cfg yolov4.cfg --image dog.jpg
  python convert.py fetch yolov4-tiny
  python convert.py labels --from train.data --to coco.json
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from data.formats.darknet import class_names, read_names
from data.image import read_image
from data.sources import open_data
from data.writing import write_data
from inference.compare import Pair, Side
from inference.detector import Detector
from inference.opening import BACKENDS
from models.formats.files import LoadedModel, LoadOptions, load_model, save_model
from models.formats.fuse import without_batch_norm
from models.network import Network
from models.published import download, find_published, listing
from models.weights import save_weights
from utils.cli import EXIT_FAILED, EXIT_OK, above_zero, run_script, script_parser, share
from utils.errors import InputError

logger = logging.getLogger(__name__)

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = script_parser("convert.py", __doc__)
    commands = parser.add_subparsers(title="what to convert", required=True, metavar="COMMAND")
    for add in (_add_labels, _add_weights, _add_partial, _add_fold, _add_compare, _add_fetch):
        add(commands)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    return int(options.run(options))


def _add_labels(commands: Commands) -> None:
    text = "a data set from one label format into another; the source is left as it is"
    parser = commands.add_parser("labels", help=text, description=text)
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="A",
        help=".data (Darknet), .json (COCO), .yaml (Ultralytics), a Pascal VOC folder, a folder or list of images",
    )
    parser.add_argument(
        "--to",
        dest="target",
        required=True,
        metavar="B",
        help="what to write, by its extension: .data, .json, .yaml; a name without extension is a Pascal VOC folder",
    )
    parser.add_argument("--names", help="names file to use in place of the data set's own names")
    parser.add_argument("--copy", action="store_true", help="copy the images where they are needed, default: links")
    parser.set_defaults(run=_labels)


def _labels(options: argparse.Namespace) -> int:
    written = write_data(open_data(options.source, names=options.names), options.target, copy=options.copy)
    print(f"{written.labels} labels of {written.images} images: {', '.join(map(str, written.files))}")
    for what, count in written.lost.items():
        print(f"not taken along: {count} {what}")
    return EXIT_OK


def _add_source(parser: argparse.ArgumentParser) -> None:
    """The flags of every command that reads a network."""
    parser.add_argument("--cfg", help="cfg file; .pt and .safetensors files written by this program have theirs inside")
    parser.add_argument("--weights", required=True, metavar="IN", help=".weights, .pt or .safetensors")
    parser.add_argument("--ema", action="store_true", help="the averages of a training run in the place of its weights")
    parser.add_argument(
        "--trust-pickle", action="store_true", help="read .pt by pickle: it runs whatever code the file asks for"
    )


def _source(options: argparse.Namespace) -> LoadedModel:
    return load_model(options.weights, LoadOptions(cfg=options.cfg, ema=options.ema, trust_pickle=options.trust_pickle))


def _add_weights(commands: Commands) -> None:
    text = "a network from one file format into another"
    parser = commands.add_parser("weights", help=text, description=text)
    _add_source(parser)
    parser.add_argument("--out", required=True, help="what to write, by extension: .weights, .pt, .safetensors")
    parser.add_argument("--out-cfg", metavar="FILE", help="also write the cfg")
    parser.add_argument("--names", help="names file to store in .pt or .safetensors")
    parser.add_argument("--clear", action="store_true", help="set the count of training images seen to 0")
    parser.set_defaults(run=_weights)


def _weights(options: argparse.Namespace) -> int:
    network, names = _source(options)
    if options.clear:
        network.seen = 0
    save_model(network, options.out, _names(options, network) if options.names else names)
    if options.out_cfg:
        network.plan.cfg.write(options.out_cfg)
    print(
        f"{options.out}: {network.plan.parameters:,} weights of {len(network.plan.steps)} layers, seen {network.seen}"
    )
    return EXIT_OK


def _names(options: argparse.Namespace, network: Network) -> tuple[str, ...]:
    """The names of --names, as many as a detector has classes; what a classifier's outputs are called is not checked."""
    if Path(options.out).suffix == ".weights":
        logger.warning("--names %s: has no effect, .weights files hold no names", options.names)
    if network.plan.box_heads:
        return class_names(options.names, Detector(network).classes, network.plan.cfg.path)
    return read_names(options.names)


def _add_partial(commands: Commands) -> None:
    text = "the first layers of a network as a backbone to start other trainings from"
    parser = commands.add_parser("partial", help=text, description=text)
    _add_source(parser)
    parser.add_argument("--layers", type=int, required=True, metavar="N", help="how many layers to keep")
    parser.add_argument("--out", help="default: the weights' name with the extension .conv.N, in the current folder")
    parser.set_defaults(run=_partial)


def _partial(options: argparse.Namespace) -> int:
    network, _ = _source(options)
    count = len(network.plan.steps)
    if not 1 <= options.layers <= count:
        raise InputError(f"--layers {options.layers}: expected 1 to {count}, the layers of {network.plan.cfg.path}")
    out = options.out or f"{Path(options.weights).stem}.conv.{options.layers}"
    network.seen = 0  # detector.c partial clears it, so that training begins at its start
    save_weights(network, out, cutoff=options.layers)
    print(f"{out}: the first {options.layers} of {count} layers")
    return EXIT_OK


def _add_fold(commands: Commands) -> None:
    text = "the same network without batch normalisation, folded into the weights"
    parser = commands.add_parser("fold", help=text, description=text)
    _add_source(parser)
    parser.add_argument("--out", required=True, help="what to write, by extension: .weights, .pt, .safetensors")
    parser.add_argument("--out-cfg", required=True, metavar="FILE", help="the cfg without batch_normalize")
    parser.set_defaults(run=_fold)


def _fold(options: argparse.Namespace) -> int:
    network, names = _source(options)
    fused = without_batch_norm(network)
    save_model(fused, options.out, names)
    fused.plan.cfg.write(options.out_cfg)
    print(f"{options.out}, {options.out_cfg}: {network.plan.parameters - fused.plan.parameters:,} weights fewer")
    return EXIT_OK


def _add_compare(commands: Commands) -> None:
    text = "two models, of any formats, on the same image: layers, outputs, boxes, verdict"
    parser = commands.add_parser("compare", help=text, description=text)
    add = parser.add_argument
    add("models", nargs=2, metavar="MODEL", help=".weights, .pt, .safetensors, .onnx, .xml or .torchscript")
    add("--cfg", nargs="+", default=[], help="cfg of files that have none inside; two if they differ")
    add("--image", help="image to look at; default: random values, the same every time")
    add(
        "--img-size",
        type=above_zero,
        nargs="+",
        default=[],
        help="input size, or width height; default: the first model's",
    )
    add("--conf-thres", type=share, default=0.25, help="least score of boxes, default 0.25")
    add("--backend", nargs="+", choices=BACKENDS, default=[], help="engines; two if they differ")
    add("--every-layer", action="store_true", help="print all layers, not only those that differ")
    parser.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    sides = [
        Side(path, _of_two(options.cfg, number, "--cfg"), _of_two(options.backend, number, "--backend"))
        for number, path in enumerate(options.models)
    ]
    if len(options.img_size) > 2:
        raise InputError("--img-size: expected one number or width and height")
    size = (options.img_size[0], options.img_size[-1]) if options.img_size else None
    pair = Pair(sides[0], sides[1], size)
    print(pair.describe())
    image = read_image(options.image, pair.channels) if options.image else pair.random_image()
    verdict = pair.compare(image, conf=options.conf_thres, every_layer=options.every_layer, show=print)
    print(verdict.text)
    return EXIT_OK if verdict.same else EXIT_FAILED


def _of_two(values: Sequence[str], number: int, flag: str) -> str | None:
    if len(values) > 2:
        raise InputError(f"{flag}: expected one, or two for the two models")
    return values[min(number, len(values) - 1)] if values else None


def _add_fetch(commands: Commands) -> None:
    text = "download published weights; without a name: the list of them"
    parser = commands.add_parser("fetch", help=text, description=text)
    parser.add_argument("name", nargs="?", help="which; default: print the list")
    parser.add_argument("--out", default="weights", metavar="FOLDER", help="where to, default weights/")
    parser.add_argument("--url", help="download from here instead, a mirror say")
    parser.set_defaults(run=_fetch)


def _fetch(options: argparse.Namespace) -> int:
    if options.name is None:
        print(listing())
        return EXIT_OK
    published = find_published(options.name)
    path = download(options.url or published.url, Path(options.out) / published.file, published.expected)
    print(f"{path}: {path.stat().st_size:,} bytes; its cfg is {published.cfg}")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(run_script(main))

"""Convert models and datasets from one file format to another, and compare models.

examples:
  python convert.py weights --cfg yolov4.cfg --weights yolov4.weights --out yolov4.pt
  python convert.py weights --weights yolov4.safetensors --out yolov4.weights --out-cfg yolov4.cfg
  python convert.py partial --cfg yolov4.cfg --weights yolov4.weights --layers 137
  python convert.py fold --cfg yolov4.cfg --weights yolov4.weights --out folded.weights --out-cfg folded.cfg
  python convert.py compare yolov4.weights yolov4.onnx --cfg yolov4.cfg --image dog.jpg
  python convert.py fetch yolov4-tiny
  python convert.py labels --from train.data --to coco.json
  python convert.py labels --from exported --to split/my.data --val 0.2
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from data.formats.darknet import class_names, read_names
from data.image import read_image
from data.sources import hold_out, open_data
from data.writing import write_data
from inference.compare import Comparison, Side
from inference.model import AUTO, BACKENDS
from models.fit import classes_of
from models.formats.files import LoadedModel, LoadOptions, load_model, save_model
from models.formats.fuse import without_batch_norm
from models.network import Network
from models.published import download, file_sha256, find_published, listing
from models.weights import save_weights
from utils.cli import EXIT_FAILED, EXIT_OK, flags_of, fraction, input_size, run_script, script_parser
from utils.errors import InputError
from utils.files import exists

logger = logging.getLogger(__name__)

_OUT = "file to write; its extension is the format: .weights, .pt, .safetensors"


class Command(Protocol):
    """Flags of one command; `run` executes it and may return an exit code."""

    def run(self) -> int | None: ...


def parse_arguments(arguments: Sequence[str] | None) -> Command:
    parser = script_parser("convert.py", __doc__)
    commands = parser.add_subparsers(title="what to convert", required=True, metavar="COMMAND")
    for add in (_add_labels, _add_weights, _add_partial, _add_fold, _add_compare, _add_fetch):
        add(commands)
    values = vars(parser.parse_args(arguments))
    command = values.pop("command")
    found: Command = command(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    return parse_arguments(arguments).run() or EXIT_OK


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _command(commands: Commands, name: str, record: type[Command], text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=record)
    return parser


@dataclass(frozen=True, kw_only=True)
class Labels:
    source: str
    target: str
    names: str | None
    val: float | None
    copy: bool

    def run(self) -> None:
        dataset = open_data(self.source, names=self.names)
        if self.val is not None:
            dataset = hold_out(dataset, self.val)
        written = write_data(dataset, self.target, copy=self.copy)
        print(f"{written.labels} labels of {written.images} images: {', '.join(map(str, written.files))}")
        for what, count in written.not_converted.items():
            print(f"not converted: {count} {what}")


def _add_labels(commands: Commands) -> None:
    add = flags_of(_command(commands, "labels", Labels, "convert the labels of a dataset; the source is not changed"))
    add("--from", dest="source", required=True, metavar="A",
        help=".data, .yaml, COCO .json or folder, Pascal VOC folder, folder or list of images")  # fmt: skip
    add("--to", dest="target", required=True, metavar="B",
        help="dataset to write; its extension is the format: .data, .yaml, .json, or none for a Pascal VOC folder")  # fmt: skip
    add("--names", help="names file that replaces the class names of the dataset")
    add("--val", type=fraction, metavar="F",
        help="hold out this fraction of the images, chosen at random, for validation: --val 0.2")  # fmt: skip
    add("--copy", action="store_true", help="copy the images that the format needs, instead of linking them")


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The network that a command reads."""

    cfg: str | None
    weights: str
    ema: bool
    trust_pickle: bool

    def load(self, *outputs: str | None) -> LoadedModel:
        """Return the network. Raises InputError if one of `outputs` would replace a file that is read."""
        for out in filter(None, outputs):
            for source in filter(None, (self.cfg, self.weights)):
                if exists(out) and exists(source) and Path(out).samefile(source):
                    raise InputError(f"{out}: is the file to convert, expected another file name")
        return load_model(self.weights, LoadOptions(cfg=self.cfg, ema=self.ema, trust_pickle=self.trust_pickle))


def _add_source(parser: argparse.ArgumentParser) -> None:
    add = flags_of(parser)
    add(
        "--cfg",
        help="Darknet cfg file; not needed for shipped models, nor for .pt and .safetensors files of this program",
    )
    add(
        "--weights",
        required=True,
        metavar="IN",
        help=".weights, .pt or .safetensors file, or the name of a shipped model",
    )
    add("--ema")
    add("--trust-pickle")


@dataclass(frozen=True, kw_only=True)
class Weights(_Source):
    out: str
    out_cfg: str | None
    names: str | None
    clear: bool

    def run(self) -> None:
        network, names = self.load(self.out, self.out_cfg)
        if self.clear:
            network.seen = 0
        save_model(network, self.out, self._names(network) if self.names else names)
        if self.out_cfg:
            network.plan.cfg.write(self.out_cfg)
        count, layers = network.plan.parameters, len(network.plan.steps)
        print(f"{self.out}: {count:,} weights of {layers} layers, seen {network.seen}")

    def _names(self, network: Network) -> tuple[str, ...]:
        """Return the names of --names; for a detector, there must be as many as classes."""
        assert self.names is not None
        if Path(self.out).suffix == ".weights":
            logger.warning("--names %s: has no effect, .weights files contain no class names", self.names)
        if network.plan.box_heads:
            return class_names(self.names, classes_of(network.plan), network.plan.cfg.path)
        return read_names(self.names)


def _add_weights(commands: Commands) -> None:
    parser = _command(commands, "weights", Weights, "convert a network into another file format")
    _add_source(parser)
    add = flags_of(parser)
    add("--out", required=True, help=_OUT)
    add("--out-cfg", metavar="FILE", help="also write the cfg")
    add("--names", help="names file to store in .pt or .safetensors")
    add("--clear", action="store_true", help="reset the count of training images seen")


@dataclass(frozen=True, kw_only=True)
class Partial(_Source):
    layers: int
    out: str | None

    def run(self) -> None:
        out = self.out or f"{Path(self.weights).stem}.conv.{self.layers}"
        network, _ = self.load(out)
        count = len(network.plan.steps)
        if not 1 <= self.layers <= count:
            raise InputError(f"--layers {self.layers}: expected 1 to {count}, the layers of {network.plan.cfg.path}")
        network.seen = 0  # cleared by darknet.c partial, so that training starts at iteration 0
        save_weights(network, out, cutoff=self.layers)
        print(f"{out}: the first {self.layers} of {count} layers")


def _add_partial(commands: Commands) -> None:
    text = "write the first layers of a network, as a backbone to start training from"
    parser = _command(commands, "partial", Partial, text)
    _add_source(parser)
    add = flags_of(parser)
    add("--layers", type=int, required=True, metavar="N", help="number of layers to keep")
    add(
        "--out",
        help="file to write; default: the name of the weights with the extension .conv.N, in the current folder",
    )


@dataclass(frozen=True, kw_only=True)
class Fold(_Source):
    out: str
    out_cfg: str

    def run(self) -> None:
        network, names = self.load(self.out, self.out_cfg)
        fused = without_batch_norm(network)
        save_model(fused, self.out, names)
        fused.plan.cfg.write(self.out_cfg)
        print(f"{self.out}, {self.out_cfg}: {network.plan.parameters - fused.plan.parameters:,} weights fewer")


def _add_fold(commands: Commands) -> None:
    parser = _command(commands, "fold", Fold, "fold batch normalisation into the weights")
    _add_source(parser)
    add = flags_of(parser)
    add("--out", required=True, help=_OUT)
    add("--out-cfg", required=True, metavar="FILE", help="also write the cfg, without batch_normalize")


@dataclass(frozen=True, kw_only=True)
class Compare:
    models: tuple[str, str]
    cfg: tuple[str, ...]
    backend: tuple[str, ...]
    image: str | None
    img_size: tuple[int, ...]
    conf_thres: float
    every_layer: bool

    def run(self) -> int:
        one, other = (
            Side(path, _of_two(self.cfg, number, "--cfg"), _of_two(self.backend, number, "--backend") or AUTO)
            for number, path in enumerate(self.models)
        )
        comparison = Comparison(one, other, input_size(self.img_size))
        print(comparison.describe())
        image = read_image(self.image, comparison.channels) if self.image else comparison.random_image()
        verdict = comparison.compare(image, conf=self.conf_thres, every_layer=self.every_layer, show=print)
        print(verdict.text)
        return EXIT_OK if verdict.same else EXIT_FAILED


def _of_two(values: Sequence[str], number: int, flag: str) -> str | None:
    if len(values) > 2:
        raise InputError(f"{flag}: expected one, or two for the two models")
    return values[min(number, len(values) - 1)] if values else None


def _add_compare(commands: Commands) -> None:
    text = "compare two models of any format on the same image: layers, outputs, boxes"
    add = flags_of(_command(commands, "compare", Compare, text))
    add(
        "models",
        nargs=2,
        metavar="MODEL",
        help=".weights, .pt, .safetensors, .onnx, .xml or .torchscript file, or the name of a shipped model",
    )
    add("--cfg", nargs="+", default=(), help="cfg of the files that do not contain one; two if they differ")
    add("--image", help="image to run on; default: reproducible random values")
    add("--img-size", help="input size: N (square) or WIDTH HEIGHT; default: the first model's")
    add("--conf-thres")
    add("--backend", nargs="+", choices=BACKENDS, default=(), help="engine, or one for each model")
    add("--every-layer", action="store_true", help="print all layers instead of only the first that differs")


@dataclass(frozen=True, kw_only=True)
class Fetch:
    name: str | None
    out: str
    url: str | None
    sha256: str | None

    def run(self) -> None:
        if self.name is None:
            print(listing())
            return
        published = find_published(self.name)
        url, path = self.url or published.url, Path(self.out) / published.file
        download(url, path, published.about, self.sha256)
        print(f"{path}: {path.stat().st_size:,} bytes, SHA-256 {file_sha256(path)}; its cfg is {published.cfg}")


def _add_fetch(commands: Commands) -> None:
    add = flags_of(_command(commands, "fetch", Fetch, "download published weights, or list them if no name is given"))
    add("name", nargs="?", help="name of the weights; default: print the list")
    add("--out", default="weights", metavar="FOLDER", help="folder to save to, default %(default)s/")
    add("--url", help="download from here instead, for example a mirror")
    add("--sha256", type=_sha256, metavar="HEX", help="reject any other file; default: check only the size")


def _sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError("expected 64 hexadecimal digits")
    return text


if __name__ == "__main__":
    sys.exit(run_script(main))

"""The first steps of every command of the original: read the cfg, print its layers, load weights and class names."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from darknet_cli.grammar import Words
from data.formats.darknet import read_names
from inference.model import AUTO, TORCH, open_model
from inference.predictor import Classifier, Model
from models.heads.anchors import NMS_KINDS
from models.heads.base import BoxSection
from models.network import Network
from models.plan import Plan, read_plan
from models.summary import layer_table
from models.weights import read_header
from utils.errors import InputError, RunError

# enum LAYER_TYPE of darknet.h, by the first name of the section here; "" for types without a section.
_TYPES = ["convolutional", "", "connected", "maxpool", "local_avgpool", "softmax", "detection", "dropout", "crop", "route",
          "cost", "normalization", "avgpool", "local", "shortcut", "scale_channels", "sam", "activation", "rnn", "gru", "lstm",
          "conv_lstm", "history", "crnn", "batchnorm", "", "", "region", "yolo", "Gaussian_yolo", "", "reorg3d", "reorg",
          "upsample", "", "", "empty", "", "contrastive", "implicit"]  # fmt: skip
_TYPE_NUMBERS = {name: number for number, name in enumerate(_TYPES) if name}
_OWN_TYPE = 37  # BLANK: for sections that the original does not have


def stderr(text: str) -> None:
    """Print a line to stderr, after flushing stdout to keep the order."""
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)


def stdout(text: str) -> None:
    """Write text to stdout unchanged and flush it, so that readers of a pipe see it at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def base_name(path: str | Path) -> str:
    """Return a file's name up to its first dot (utils.c basecfg)."""
    return Path(path).name.partition(".")[0]


def append_line(path: str, line: object) -> None:
    """Append a line to one of the lists that the original keeps in the working directory."""
    with Path(path).open("a", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(f"{line}\n")


def device_of(words: Words) -> str:
    """Return the argument for `select_device`: -nogpu selects the CPU, -i N that GPU if there is any GPU."""
    if words["-nogpu"]:
        return "cpu"
    if words["-i"] is None:
        return ""
    return str(words["-i"]) if torch.cuda.is_available() else "cpu"


def option(options: Mapping[str, str], key: str, default: str) -> str:
    """Return a value of a .data file; report the use of the default, as the original does (option_list.c option_find_str)."""
    if key not in options:
        stderr(f"{key}: Using default '{default}'")
    return options.get(key, default)


def class_names(options: Mapping[str, str]) -> tuple[str, ...]:
    return read_names(options.get("names", "data/names.list"))


def print_network(cfg: str, *, batch: int | None = 1, train: bool = False) -> Plan:
    """Read a cfg, print the original's lines about it and return its plan. batch: mini-batch size; None: the cfg's."""
    plan = read_plan(cfg)
    net = plan.net
    mini_batch = (batch or max(1, net.batch // net.subdivisions)) * max(1, net.time_steps)
    total = mini_batch * net.subdivisions
    stdout(f"mini_batch = {mini_batch}, batch = {total}, time_steps = {net.time_steps}, train = {int(train)} \n")
    for step in plan.heads:
        if isinstance(step.section, BoxSection) and step.raw.find("nms_kind"):
            kind, beta = step.section.suppression()
            stdout(f"nms_kind: {kind} ({NMS_KINDS.index(kind)}), beta = {beta:f} \n")
    outputs = [step.shape.outputs for step in plan.steps]
    stderr(layer_table(plan))
    stderr(f"Total BFLOPS {sum(step.cost.operations for step in plan.steps) / 1e9:5.3f} ")
    stderr(f"avg_outputs = {sum(outputs) // len(outputs)} ")
    return plan


def print_weights(plan: Plan, path: str | None) -> None:
    """Print the lines about a weights file; without a file, warn about random weights."""
    if path is None:
        stderr("no weights file is named: the weights are random")
        return
    try:
        with Path(path).open("rb") as stream:
            header = read_header(stream, Path(path))
    except OSError as error:
        raise InputError(f"Couldn't open file: {path}: {error.strerror}") from None
    stderr(f"Loading weights from {path}...")
    seen, bits = header.seen, 64 if header.wide else 32
    stdout(f"\n seen {bits}, trained: {seen // 1000:.0f} K-images ({seen // 64000:.0f} Kilo-batches_64) \n")
    stderr(f"Done! Loaded {len(plan.steps)} layers from weights-file ")


def print_heads(plan: Plan) -> None:
    """Print a line for each head with boxes except [detection], for which the original has none."""
    for step in plan.steps:
        if (name := step.section.names[0]) in ("region", "yolo", "Gaussian_yolo"):
            stdout(f" Detection layer: {step.index} - type = {_TYPE_NUMBERS[name]} \n")


def print_layer_times(model: Model) -> None:
    """-benchmark_layers: print the time of each layer in every forward pass (network_kernels.cu forward_network_gpu)."""
    assert isinstance(model.network, Network)
    types = [_TYPE_NUMBERS.get(step.section.names[0], _OWN_TYPE) for step in model.network.plan.steps]
    average: dict[int, float] = {}
    start = 0.0

    def now() -> float:
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        return time.perf_counter()

    def begin(*_: object) -> None:
        nonlocal start
        start = now()

    def end(index: int) -> None:
        took = 1000 * (now() - start)
        average[index] = 0.9 * average[index] + 0.1 * took if index in average else took
        stdout(f"\n fw-layer {index} - type: {types[index]} - {took:f} ms - avg_time {average[index]:f} ms \n")
        if index == len(types) - 1:
            stdout("\n\nSorted by time (forward):\n")
            for rank, (layer, spent) in enumerate(sorted(average.items(), key=lambda item: -item[1])):
                stdout(f"{rank} - fw-sort-layer {layer} - type: {types[layer]} - avg_time {spent:f} ms \n")

    for index, layer in enumerate(model.network):
        layer.register_forward_pre_hook(begin)
        layer.register_forward_hook(lambda *_, index=index: end(index))


def open_printed(
    words: Words, options: Mapping[str, str] | None = None, *, batch: int | None = 1, train: bool = False
) -> Model:
    """Open the model of a command and print the original's lines about it.

    options: of the .data file with the names of a detector's classes.
    Raises InputError, and RunError if the number of names is wrong.
    """
    names = () if options is None else class_names(options)
    cfg, weights = words.at(3, "the cfg file"), words.get(4)
    print_weights(print_network(cfg, batch=batch, train=train), weights)
    timed = bool(words.flags.get("-benchmark_layers"))
    model = open_model(weights, cfg=cfg, device=device_of(words), backend=TORCH if timed else AUTO)
    if options is not None and not isinstance(model, Classifier):
        require_names(names, model.classes, options, cfg)
        model.names = names
    if timed:
        print_layer_times(model)
    return model


def require_names(names: Sequence[str], classes: int, options: Mapping[str, str], cfg: str) -> None:
    """Raise RunError, with the original's line, unless the names file of the .data file has a name for each class."""
    if len(names) != classes:
        file = options.get("names", "data/names.list")
        text = f"number of names {len(names)} that isn't equal to classes={classes} in the file {cfg}"
        stdout(f"\n Error: in the file {file} {text} \n")
        raise RunError(f"{file}: has {len(names)} names, {cfg} has classes={classes}")

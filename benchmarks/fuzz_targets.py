"""Targets of benchmarks/fuzz.py: valid files, ways to change their structure, and the code that reads them."""

# ruff: noqa: SIM905, lists of words are easier to read as one string

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib
import io
import json
import math
import os
import pickle
import pickletools
import re
import shutil
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
import torch

from cspyolo.__main__ import COMMANDS
from cspyolo.__main__ import main as run_script
from darknet_cli import grammar
from data.augment.albumentations import read_albumentations
from data.doctor import check_dataset
from data.formats import darknet as darknet_format
from data.frames import Failure, open_frames
from data.image import image_header, read_image
from data.sources import open_data
from data.writing import write_data
from inference.model import open_model
from models.export.build import ExportOptions
from models.export.onnx import save_onnx
from models.export.openvino import save_openvino
from models.export.torchscript import save_torchscript
from models.formats.files import LoadOptions, load_model, save_model
from models.heads.tree import read_tree
from models.load import load
from models.network import Network
from models.plan import make_plan, read_plan
from models.summary import key_report, layer_table
from models.weights import load_weights
from training.checkpoint import load_checkpoint
from utils import cfg as cfg_text
from utils.errors import InputError
from utils.packages import need
from utils.plotting import figure

for module in ("albumentations", "onnx", "onnxruntime", "openvino", "safetensors.torch", "starlette", "uvicorn"):
    need(module, module)  # here, instead of in every forked process

ROOT = Path(__file__).resolve().parent.parent
Arguments = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A reader to fuzz.

    make: makes a random input from the valid files and writes it into a folder; returns the arguments of `run`.
    run: reads the input; raises InputError or RunError to reject it.
    begin: called once in each process, with the folder of valid files.
    seconds: limit on the processor time of an input.
    memory_mib: limit on memory beyond what the process uses before.
    is_command: an input may request connections and other folders, which fail.
    slice_s: time before it is the next target's turn.
    """

    name: str
    make: Callable[[Random, Path, Path], Arguments]
    run: Callable[..., None]
    begin: Callable[[Path], None] = lambda seeds: None
    seconds: float = 5.0
    memory_mib: int = 2048
    is_command: bool = False
    slice_s: float = 4.0


# Values and how they are inserted -----------------------------------------------------------------------------------------------

CODE = "__import__('os').system('touch ../canary')"
HUGE = "9" * 5000
NUMBERS = (
    *"0 -0 -1 1 2 3 7 16 33 255 256 1000 65535 65536 100000 2147483647 2147483648 -2147483648 4294967297".split(),
    *"9223372036854775807 18446744073709551616 1e30 1e308 1e400 -1e400 1e-320 nan -nan inf -inf Infinity 0x10 1_000".split(),
    *"１２ ١ 0.5 1. .5 0,7 1.2.3 +5 --5 1e e5 1e999999999 1,2,3 true null ~".split(),
    *(HUGE, "", " "),
)
WORDS = (
    *("", "a", "a" * 300, "a" * 70000, "é", "日本", "\u202e", "\ufeff", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\x7f", "\0"),
    *("..", ".", "/", "//", "~", "-", "./", "../outside/x", "../../outside/x.jpg", "/etc/passwd", "/dev/zero", "/dev/stdin"),
    *("--help", "%s%n%d", "{0}", "${HOME}", "$(touch ../canary)", "`touch ../canary`", "; touch ../canary", CODE),
    *("!!python/object/apply:os.system ['touch ../canary']", "!!python/name:os.system", "&a [*a, *a]", "*a", "<<: *a", "? ", "- "),
    *("#", ";", "[", "]", "[]", "[net]", "[yolo]", "=", "==", "a=b", "{", "}", ":", "\t", "\r", "\r\n", "\n", "'", '"', "\\"),
    *("<!DOCTYPE html>", "<?xml version='1.0' encoding='utf-7'?>", "&amp;", "&x;", "]]>", "<![CDATA[", "<!--", "file:///etc/passwd"),
)  # fmt: skip
DEEP = (100, 1000, 5000, 100_000)
_TOKEN = re.compile(r"[^\s=,:;<>\[\]{}\"'/]+")


def value(draw: Random) -> str:
    kind = draw.random()
    if kind < 0.45:
        return draw.choice(NUMBERS)
    if kind < 0.6:
        return str(draw.randint(-5, 1 << draw.choice((4, 8, 16, 31, 33, 64))))
    if kind < 0.7:
        return repr(draw.uniform(-2, 2) * 10 ** draw.randint(-3, 12))
    return draw.choice(WORDS)


def in_text(draw: Random, text: str, others: Sequence[str] = ()) -> str:
    """Change lines and words."""
    for _ in range(draw.choice((1, 1, 1, 2, 3, 5))):
        text = draw.choice(_TEXT_CHANGES)(draw, text, others)
    return text


def _words(draw: Random, text: str, _: Sequence[str]) -> str:
    found = list(_TOKEN.finditer(text))
    for match in sorted(draw.sample(found, min(len(found), draw.choice((1, 1, 2, 4)))), key=lambda each: -each.start()):
        text = text[: match.start()] + value(draw) + text[match.end() :]
    return text


def _number(draw: Random, text: str, _: Sequence[str]) -> str:
    found = list(re.finditer(r"[-+]?\d+(\.\d+)?", text))
    if not found:
        return text
    match = draw.choice(found)
    return text[: match.start()] + draw.choice(NUMBERS) + text[match.end() :]


def _lines(draw: Random, text: str, others: Sequence[str]) -> str:
    lines = text.split("\n")
    place, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    foreign = draw.choice(others).split("\n") if others else lines
    change = draw.randrange(6)
    if change == 0:
        del lines[place]
    elif change == 1:
        lines.insert(other, lines[place])
    elif change == 2:
        lines[place], lines[other] = lines[other], lines[place]
    elif change == 3:
        lines.insert(place, draw.choice(foreign))
    elif change == 4:
        begin = draw.randrange(len(foreign))
        lines[place:place] = foreign[begin : begin + draw.randint(1, 12)]
    else:
        lines[place:place] = [lines[place]] * draw.choice((2, 10, 200, 3000))
    return "\n".join(lines)


def _characters(draw: Random, text: str, _: Sequence[str]) -> str:
    place = draw.randrange(len(text) + 1)
    change = draw.randrange(4)
    if change == 0:
        return text[:place]
    if change == 1:
        return text[:place] + text[place + draw.choice((1, 1, 5, 50)) :]
    return text[:place] + draw.choice(WORDS) + text[place:]


_TEXT_CHANGES = (_words, _words, _number, _lines, _lines, _characters)


def in_bytes(draw: Random, data: bytes, *, head: int = 0) -> bytes:
    """Change bytes, about half of them within the first `head`."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        end = min(head, len(out)) if head and draw.random() < 0.5 else len(out)
        place = draw.randrange(end + 1)
        change = draw.randrange(9)
        if change == 0 and place < len(out):
            out[place] ^= 1 << draw.randrange(8)
        elif change == 1:
            out[place : place + 1] = draw.randbytes(1)
        elif change in (2, 3, 4):
            size = draw.choice((1, 2, 4, 8))
            number = draw.choice(
                (0, 1, 2, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 1 << 24, 0x7FFFFFFF, 1 << 31, 0xFFFFFFFF, -1)
            )
            out[place : place + size] = (number % (1 << 8 * size)).to_bytes(size, draw.choice(("little", "big")))
        elif change == 5:
            del out[place:]
        elif change == 6:
            del out[place : place + draw.choice((1, 4, 64, 1000))]
        elif change == 7:
            out[place:place] = draw.choice((draw.randbytes(draw.choice((1, 4, 64, 1000))), bytes(4), bytes(1000)))
        else:
            begin = draw.randrange(len(out) + 1)
            out[place:place] = out[begin : begin + draw.choice((4, 64, 4096))]
    return bytes(out)


def in_tree(draw: Random, content: Any, scalars: Callable[[Random], Any]) -> Any:
    """Change nodes of nested dictionaries and lists."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        holders = list(_holders(content))
        if not holders:
            return scalars(draw)
        holder = draw.choice(holders)
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = draw.choice(keys)
        change = draw.randrange(8)
        if change == 0:
            del holder[key]
        elif change == 1:
            new: Any = scalars(draw)
            if isinstance(holder, dict):
                holder[new if isinstance(new, str | int) else str(new)] = holder[key]
            else:
                holder.insert(key, new)
        elif change == 2:
            holder[key] = [holder[key]] * draw.choice((1, 2, 50))
        elif change == 3:
            holder[key] = {"a": holder[key]}
        elif change == 4:
            other = draw.choice(holders)
            found = list(other.values()) if isinstance(other, dict) else other
            holder[key] = draw.choice(found) if found else None
        else:
            holder[key] = scalars(draw)
    return content


def _holders(content: Any) -> Any:
    waiting, seen = [content], set()
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict | list) and id(each) not in seen:
            seen.add(id(each))
            if each:
                yield each
            waiting += each.values() if isinstance(each, dict) else each


def plain(draw: Random) -> Any:
    """A value that JSON can express, or one that it should not."""
    return draw.choice(
        (None, True, False, 0, -1, 1, 2, 2**31, 2**63, 2**64, -(2**70), 10**400, 0.5, -1.5, 1e308, math.inf, math.nan, [], {}, "",
         [1, 2, 3, 4], [None], [[]], {"a": 1}, [1e308] * 4, [math.nan] * 4, [10**400] * 4, *(draw.choice(WORDS) for _ in range(9)))
    )  # fmt: skip


def dumped(draw: Random, content: Any) -> bytes:
    """JSON text, sometimes damaged."""
    deep = "@deep@"
    if draw.random() < 0.02:
        content = {"images": deep, "a": content}
    try:
        text = json.dumps(content)
    except (ValueError, RecursionError):  # a cycle
        text = "{"
    if deep in text:
        count = draw.choice(DEEP)
        text = text.replace(f'"{deep}"', "[" * count + "]" * count)
    if draw.random() < 0.05:
        text = re.sub(r"\d+", lambda match: HUGE if draw.random() < 0.02 else match[0], text)
    data = text.encode("utf-8", "surrogatepass")
    return in_text(draw, text).encode("utf-8", "surrogatepass") if draw.random() < 0.25 else data


def encoded(draw: Random, text: str) -> bytes:
    """Text as bytes, sometimes damaged or in another encoding."""
    kind = draw.random()
    if kind < 0.02:
        return text.encode("utf-16", "surrogatepass")
    data = text.encode("utf-8", "surrogateescape")
    return in_bytes(draw, data) if kind < 0.1 else data


# Valid files --------------------------------------------------------------------------------------------------------------------

CFG = """[net]
width=64
height=64
channels=3
batch=2
subdivisions=1
learning_rate=0.001
max_batches=1

[convolutional]
batch_normalize=1
filters=4
size=8
stride=8
activation=leaky

[convolutional]
filters=14
size=1
activation=linear

[yolo]
mask=0,1
num=2
anchors=16,16, 32,32
classes=2
"""
CLASSIFIER = """[net]
width=16
height=16
channels=3
[convolutional]
filters=3
size=4
stride=4
activation=leaky
[avgpool]
[softmax]
"""
IMAGE_FORMATS = (".jpg", ".png", ".webp", ".gif", ".bmp", ".tiff", ".ppm", ".jp2", ".avif", ".sr")


def make_seeds(folder: Path) -> None:
    """Write valid files of every kind, one folder per kind, and a data set with a model in `base`."""
    base = folder / "base"
    for name in ("base", "cfg", "model", "image", "video", "cifar"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    (base / "my.cfg").write_text(CFG)
    (base / "classifier.cfg").write_text(CLASSIFIER)
    (base / "my.names").write_text("cat\ndog\n")
    network = load(base / "my.cfg")
    for parameter in network.parameters():
        parameter.data *= 0.3  # keeps exp from overflowing
    save_model(network, base / "my.weights")
    _make_set(base)
    for path in (
        *sorted((ROOT / "tests" / "reference" / "cfg").glob("*.cfg"))[::2],
        ROOT / "cfg" / "csppeleenet-efm.cfg",
    ):
        shutil.copy(path, folder / "cfg")
    (folder / "cfg" / "0.cfg").write_text(CFG)
    (folder / "cfg" / "1.cfg").write_text(CLASSIFIER)
    _make_models(network, folder / "model", base)
    _make_images(folder / "image")
    _make_videos(folder / "video")
    figure(1, 1)  # the first figure starts a program that lists fonts
    rng = np.random.default_rng(0)
    names = [f"class{number}" for number in range(10)]
    batch = {"labels": [3, 9], "data": rng.integers(0, 255, (2, 3072), np.uint8), "filenames": ["a", "b"]}
    (folder / "cifar" / "batch").write_bytes(pickle.dumps(batch, protocol=2))
    (folder / "cifar" / "meta").write_bytes(pickle.dumps({"label_names": names}, protocol=2))
    (folder / "cifar" / "bin").write_bytes(b"\x03" + rng.bytes(3072) + b"\x09" + rng.bytes(3072))


def _make_set(folder: Path) -> None:
    """Write two images in every data set format."""
    rng = np.random.default_rng(0)
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / "voc" / part).mkdir(parents=True)
    for number in range(2):
        image = rng.integers(0, 255, (40, 48, 3), np.uint8)
        for path in (folder / f"{number}.png", folder / "voc" / "JPEGImages" / f"{number}.png"):
            cv2.imwrite(str(path), image)
        (folder / f"{number}.txt").write_text(f"{number} 0.5 0.5 0.4 0.5\n0 0.25 0.3 0.2 1e-1 0.9\n")
    (folder / "list.txt").write_text("0.png\n1.png\n")
    (folder / "my.data").write_text(
        "classes=2\ntrain=list.txt\nvalid=list.txt\nnames=my.names\nbackup=backup\neval=coco\n"
    )
    (folder / "my.yaml").write_text("path: .\ntrain: list.txt\nval: [list.txt]\nnames:\n  0: cat\n  1: dog\n")
    images = [{"id": number, "file_name": f"{number}.png", "width": 48, "height": 40} for number in range(2)]
    boxes = [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 20, 10.5], "area": 200, "iscrowd": 0}]
    categories = [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}]
    (folder / "coco.json").write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    for number in range(2):
        (folder / "voc" / "Annotations" / f"{number}.xml").write_text(
            "<?xml version='1.0' encoding='utf-8'?>\n<annotation>\n<filename>0.png</filename>\n"
            "<size><width>48</width><height>40</height><depth>3</depth></size>\n"
            "<object>\n<name>cat</name><difficult>0</difficult>\n"
            "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20.5</xmax><ymax>30</ymax></bndbox>\n</object>\n</annotation>\n"
        )
    (folder / "voc" / "ImageSets" / "Main" / "train.txt").write_text("0\n1\n")
    (folder / "my.tree").write_text("animal -1\nplant -1\ncat 0\ndog 0\n")
    (folder / "albumentations.yaml").write_text(
        "__version__: 2.0.8\ntransform:\n  __class_fullname__: Compose\n  p: 1.0\n  bbox_params: null\n  keypoint_params: null\n"
        "  additional_targets: {}\n  is_check_shapes: true\n  seed: null\n  transforms:\n"
        "  - __class_fullname__: HorizontalFlip\n    p: 0.5\n  - __class_fullname__: ToGray\n    p: 0.5\n"
    )


def _make_models(network: Network, folder: Path, base: Path) -> None:
    names = ("cat", "dog")
    for suffix in (".pt", ".safetensors"):
        save_model(network, folder / f"my{suffix}", names)
    state = {f"module_list.{i}.Conv2d.weight": torch.rand(4, 3, 8, 8) for i in range(1)} | {"b": torch.zeros(4)}
    torch.save({"model": state, "epoch": 3}, folder / "foreign.pt")
    before = Path.cwd()
    try:
        os.chdir(base)
        flags = "--cfg my.cfg --data my.data --iterations 2 --workers 0 --no-val --no-plots".split()
        code = run_script(["train", *flags, "--no-tensorboard", "--save-period", "0", "--project", "run"])
        assert code == 0, "no checkpoint was made"
    finally:
        os.chdir(before)
    shutil.copy(base / "run" / "exp" / "weights" / "last.pt", folder / "last.pt")
    shutil.rmtree(base / "run")
    folded = load(base / "my.cfg", base / "my.weights").fold()
    for outputs in ("raw", "boxes", "nms"):
        save_onnx(folded, folder / f"{outputs}.onnx", ExportOptions(outputs=outputs), names)
    save_openvino(folded, folder / "my.xml", ExportOptions(outputs="boxes"), names)
    save_torchscript(folded, folder / "my.torchscript", ExportOptions(outputs="boxes"), names)


def _make_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 255, (20, 24, 3), np.uint8)
    grey = rng.integers(0, 255, (9, 7), np.uint8)
    for suffix in IMAGE_FORMATS:
        for name, image in (("colour", colour), ("grey", grey)):
            try:
                good, data = cv2.imencode(suffix, image)
            except cv2.error:  # this OpenCV build cannot write the format
                continue
            if good:
                (folder / f"{name}{suffix}").write_bytes(data.tobytes())
    (folder / "deep.png").write_bytes(cv2.imencode(".png", rng.integers(0, 65535, (5, 6, 4), np.uint16))[1].tobytes())
    (folder / "deep.tiff").write_bytes(cv2.imencode(".tiff", rng.integers(0, 65535, (5, 6, 3), np.uint16))[1].tobytes())
    progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 1]
    jpeg = cv2.imencode(".jpg", colour, progressive)[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    (folder / "exif.jpg").write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])


def _make_videos(folder: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [
        np.full((32, 48, 3), 20 * number, np.uint8) + rng.integers(0, 20, (32, 48, 3), np.uint8) for number in range(6)
    ]
    for name, codec in (
        ("a.mp4", "mp4v"),
        ("a.avi", "MJPG"),
        ("b.avi", "XVID"),
        ("a.mkv", "mp4v"),
        ("a.webm", "VP80"),
        ("b.webm", "VP90"),
        ("a.mpg", "PIM1"),
        ("b.mpg", "MPG2"),
        ("a.flv", "FLV1"),
        ("a.mov", "mp4v"),
        ("a.wmv", "WMV2"),
    ):
        writer = cv2.VideoWriter(str(folder / name), cv2.VideoWriter.fourcc(*codec), 25, (48, 32))
        for frame in frames:
            writer.write(frame)
        writer.release()
        if not (folder / name).exists() or not (folder / name).stat().st_size:
            (folder / name).unlink(missing_ok=True)
    (folder / "a.mjpeg").write_bytes(b"".join(cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames))
    shutil.copy(ROOT / "data" / "samples" / "scenes.mp4", folder / "h264.mp4")


@functools.cache
def _texts(folder: Path) -> tuple[str, ...]:
    return tuple(path.read_text("utf-8", "surrogateescape") for path in sorted(folder.iterdir()))


@functools.cache
def _files(folder: Path, pattern: str = "*") -> tuple[tuple[str, bytes], ...]:
    return tuple((path.name, path.read_bytes()) for path in sorted(folder.glob(pattern)) if path.is_file())


def _base(seeds: Path, folder: Path, *names: str) -> None:
    for name in names:
        source = seeds / "base" / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy(source, folder / name)


# cfg and weights ----------------------------------------------------------------------------------------------------------------


def make_cfg(draw: Random, seeds: Path, folder: Path) -> Arguments:
    texts = _texts(seeds / "cfg")
    text = draw.choice(texts)
    (folder / "a.cfg").write_bytes(encoded(draw, in_text(draw, text, texts)))
    return ("a.cfg",)


def run_cfg(path: str) -> None:
    plan = make_plan(cfg_text.read(path))
    if len(plan.steps) < 200:
        layer_table(plan)
        key_report(plan.cfg)


def make_network(draw: Random, seeds: Path, folder: Path) -> Arguments:
    """Change values and layers of a small cfg, so that most of it can still be planned."""
    texts = [text for text in _texts(seeds / "cfg") if len(text) < 3000]
    text = draw.choice(texts)
    for _ in range(draw.choice((1, 1, 2, 3))):
        text = draw.choice((_number, _words, _lines))(draw, text, texts)
    (folder / "a.cfg").write_text(text, "utf-8", "surrogateescape")
    return ("a.cfg",)


def run_network(path: str) -> None:
    plan = read_plan(path)
    work = sum(step.shape.outputs for step in plan.steps)
    if plan.parameters > 300_000 or work > 2_000_000 or sum(step.cost.operations for step in plan.steps) > 2e8:
        raise InputError("too large to run here")
    network = Network(plan).eval()
    shape = plan.input
    with torch.no_grad():
        network(torch.zeros(1, shape.channels, shape.height, shape.width))


def make_weights(draw: Random, seeds: Path, folder: Path) -> Arguments:
    _base(seeds, folder, "my.cfg")
    data = (seeds / "base" / "my.weights").read_bytes()
    change = draw.randrange(5)
    if change == 0:
        data = struct.pack("<iii", *(draw.choice((0, 1, 2, 3, -1, 1001, 2**31 - 1)) for _ in range(3))) + data[12:]
    elif change == 1:
        place = 20 + 4 * draw.randrange((len(data) - 20) // 4)
        data = (
            data[:place] + struct.pack("<f", draw.choice((math.nan, math.inf, -1.0, 1e38, 1e-45))) + data[place + 4 :]
        )
    elif change == 2:
        data = (
            data[: draw.randrange(len(data))]
            if draw.random() < 0.5
            else data + draw.randbytes(draw.choice((1, 4, 28, 112)))
        )
    else:
        data = in_bytes(draw, data, head=24)
    (folder / "a.weights").write_bytes(data)
    return draw.random() < 0.5, draw.choice((None, None, 0, 1, 2, 99))


def run_weights(partial: bool, cutoff: int | None) -> None:
    load_weights(Network(read_plan("my.cfg")), "a.weights", partial=partial, cutoff=cutoff)


# Archives of tensors ------------------------------------------------------------------------------------------------------------


class Evil:
    """An object whose pickle executes code when loaded without protection."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, (CODE,))


def _tensor_or_plain(draw: Random) -> Any:
    tensors = (torch.zeros(0), torch.zeros(3), torch.full((4, 3, 8, 8), math.nan), torch.zeros(1).expand(10**9), torch.arange(4),
               torch.zeros(2, dtype=torch.complex64), torch.zeros(2, dtype=torch.bfloat16), torch.eye(3).to_sparse(),
               torch.zeros(4, 3, 8, 8, device="meta"), torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
               torch.nn.Parameter(torch.ones(4)), torch.ones(4, 3, 8, 8).transpose(0, 1), torch.ones(8, 4)[::2],
               torch.tensor(1.0))  # fmt: skip
    return draw.choice(tensors) if draw.random() < 0.4 else plain(draw)


def make_archive(
    draw: Random, seeds: Path, folder: Path, names: Sequence[str] = ("my.pt", "foreign.pt", "last.pt")
) -> Arguments:
    """Change the content, pickle, zip structure or bytes of a PyTorch file."""
    _base(seeds, folder, "my.cfg")
    name = draw.choice(names)
    path = seeds / "model" / name
    change = draw.random()
    if change < 0.4:
        content = in_tree(draw, torch.load(path, weights_only=True), _tensor_or_plain)
        if draw.random() < 0.05 and isinstance(content, dict):
            content["model"] = content
        if draw.random() < 0.05:
            content = {"model": Evil(), "a": content}
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                torch.save(content, buffer)
            except (RuntimeError, NotImplementedError, RecursionError):
                torch.save(Evil(), buffer)
        data = buffer.getvalue()
    elif change < 0.85:
        data = in_zip(draw, path.read_bytes())
    else:
        data = in_bytes(draw, path.read_bytes(), head=100)
    (folder / "a.pt").write_bytes(data)
    return draw.random() < 0.5, draw.random() < 0.2


def run_archive(with_cfg: bool, ema: bool) -> None:
    try:
        load_checkpoint("a.pt")
    except InputError:
        load_model("a.pt", LoadOptions(cfg="my.cfg" if with_cfg else None, ema=ema))


def in_zip(draw: Random, data: bytes) -> bytes:
    """Change members, their names and their compression; the result is a valid archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members: list[list[Any]] = [[each.filename, archive.read(each)] for each in archive.infolist()]
    for _ in range(draw.choice((1, 1, 2))):
        member = draw.choice(members)
        change = draw.randrange(8)
        if change == 0:
            members.remove(member)
        elif change == 1:
            member[0] = draw.choice(
                ("../outside/x", "/etc/x", "data.pkl", "archive/data.pkl", "a/../../x", "x" * 300, member[0] + "/")
            )
        elif change == 2:
            members.insert(draw.randrange(len(members)), [member[0], in_bytes(draw, member[1])])
        elif change == 3:
            member[1] = bytes(draw.choice((0, 1, 10**6)))
        elif change == 4:
            member[1] = in_bytes(draw, member[1])
        else:
            chosen = next((each for each in members if each[0].endswith("data.pkl")), member)
            chosen[1] = in_pickle(draw, chosen[1])
        if not members:
            break
    buffer = io.BytesIO()
    kind = draw.choice((zipfile.ZIP_STORED,) * 8 + (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", kind) as archive:
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, kind)
        if draw.random() < 0.01:
            archive.writestr("bomb", bytes(2**28), zipfile.ZIP_DEFLATED)
    out = buffer.getvalue()
    return in_bytes(draw, out) if draw.random() < 0.1 else out


_GLOBALS = tuple(
    f"c{name.replace('/', chr(10))}\n".encode()
    for name in (
        *"os/system builtins/eval builtins/getattr builtins/bytearray subprocess/Popen _codecs/encode".split(),
        *"collections/OrderedDict numpy/dtype numpy/ndarray numpy._core.multiarray/_reconstruct torch/FloatStorage".split(),
        *"torch/Size torch/Tensor torch._utils/_rebuild_tensor_v2 torch._utils/_rebuild_meta_tensor_no_storage".split(),
    )
)
_OPCODES = (
    *(bytes([each]) for each in b"(tRbsuae02N}])\x81Q.\x94"),
    b"h\x00",
    b"q\x00",
    b"j\xff\xff\xff\x7f",
    b"B\xff\xff\xff\x7f",
)


def in_pickle(draw: Random, data: bytes) -> bytes:
    """Change a pickle opcode by opcode."""
    try:
        places = [place for _, _, place in pickletools.genops(data) if place is not None]
    except Exception:  # already damaged
        return in_bytes(draw, data)
    parts = [data[begin:end] for begin, end in zip(places, [*places[1:], len(data)], strict=True)]
    for _ in range(draw.choice((1, 1, 2, 4))):
        place = draw.randrange(len(parts))
        change = draw.randrange(8)
        if change == 0:
            del parts[place]
        elif change == 1:
            parts.insert(place, draw.choice(parts))
        elif change == 2:
            parts[place] = draw.choice(parts)
        elif change == 3:
            parts.insert(place, draw.choice(_GLOBALS))
        elif change == 4:
            found = [i for i, each in enumerate(parts) if each[:1] in b"c\x93"]
            if found:
                parts[draw.choice(found)] = draw.choice(_GLOBALS)
        elif change == 5:
            found = [i for i, each in enumerate(parts) if each[:1] in b"KMJ\x8a"]
            if found:
                number = draw.choice((0, -1, 2, 2**31 - 1, 2**31, 2**62, 2**63, -(2**63), 10**30))
                parts[draw.choice(found)] = b"I%d\n" % number
        elif change == 6:
            parts.insert(place, draw.choice(_OPCODES))
        else:
            parts[place] = in_bytes(draw, parts[place])
        if not parts:
            return b""
    return b"".join(parts)


def make_safetensors(draw: Random, seeds: Path, folder: Path) -> Arguments:
    data = (seeds / "model" / "my.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    change = draw.random()
    if change < 0.6:
        text = dumped(draw, in_tree(draw, header, plain))
        told = len(text) if draw.random() < 0.9 else draw.choice((0, 1, 10**8, 2**63, 2**64 - 1))
        data = struct.pack("<Q", told) + text + body
    elif change < 0.8:
        header["__metadata__"]["darknet"] = dumped(
            draw, in_tree(draw, json.loads(header["__metadata__"]["darknet"]), plain)
        ).decode("utf-8", "replace")
        text = json.dumps(header).encode()
        data = struct.pack("<Q", len(text)) + text + body
    else:
        data = in_bytes(draw, data, head=8 + length)
    (folder / "a.safetensors").write_bytes(data)
    return ()


def run_safetensors() -> None:
    load_model("a.safetensors")


# Exported models ----------------------------------------------------------------------------------------------------------------


def make_onnx(draw: Random, seeds: Path, folder: Path) -> Arguments:
    import onnx

    _, data = draw.choice(_files(seeds / "model", "*.onnx"))
    if draw.random() < 0.8:
        model = onnx.load_from_string(data)
        for _ in range(draw.choice((1, 1, 2, 3))):
            _change_onnx(draw, model)
        data = model.SerializeToString()
    else:
        data = in_bytes(draw, data)
    (folder / "a.onnx").write_bytes(data)
    return (draw.choice(("onnxruntime", "onnxruntime", "opencv")),)


def _change_onnx(draw: Random, model: Any) -> None:
    graph, change = model.graph, draw.randrange(9)
    if change < 3:
        pair = draw.choice(model.metadata_props)
        try:
            pair.value = dumped(draw, in_tree(draw, json.loads(pair.value), plain)).decode("utf-8", "replace")
        except (ValueError, RecursionError):  # plain text, or already damaged
            pair.value = value(draw)
    elif change == 3:
        node = draw.choice(graph.node)
        node.op_type = draw.choice(
            ("Relu", "Conv", "Reshape", "Loop", "If", "Nope", "", "NonMaxSuppression", node.op_type)
        )
    elif change == 4:
        nodes = [node for node in graph.node if node.attribute]
        if nodes:
            attribute = draw.choice(draw.choice(nodes).attribute)
            attribute.i = draw.choice((0, -1, 1, 2**31, 2**62))
            if attribute.ints:
                attribute.ints[draw.randrange(len(attribute.ints))] = draw.choice((0, -1, 1, 5, 2**31, 2**62))
    elif change == 5:
        names = [name for node in graph.node for name in (*node.input, *node.output)]
        node = draw.choice(graph.node)
        if node.input:
            node.input[draw.randrange(len(node.input))] = draw.choice([*names, "", "nowhere"])
    elif change == 6 and graph.initializer:
        tensor = draw.choice(graph.initializer)
        if tensor.dims and draw.random() < 0.5:
            tensor.dims[draw.randrange(len(tensor.dims))] = draw.choice((0, -1, 1, 7, 2**31, 2**62))
        else:
            tensor.raw_data = in_bytes(draw, tensor.raw_data)
        if draw.random() < 0.2:
            tensor.data_location = 1
            tensor.external_data.add(
                key="location", value=draw.choice(("../../../../etc/passwd", "/etc/passwd", "nowhere", ""))
            )
    elif change == 7:
        dims = draw.choice((*graph.input, *graph.output)).type.tensor_type.shape.dim
        if dims:
            draw.choice(dims).dim_value = draw.choice((0, -1, 1, 5, 2**31, 2**62))
    else:
        place = draw.randrange(len(graph.node))
        del graph.node[place]


def run_exported(backend: str, name: str = "a.onnx") -> None:
    model = open_model(name, backend=backend, device="cpu")
    model.predict([np.zeros((32, 48, 3), np.uint8)])


def make_openvino(draw: Random, seeds: Path, folder: Path) -> Arguments:
    text, data = (seeds / "model" / "my.xml").read_text("utf-8"), (seeds / "model" / "my.bin").read_bytes()
    if draw.random() < 0.8:
        for _ in range(draw.choice((1, 1, 2))):
            text = _in_xml(draw, text)
    else:
        data = in_bytes(draw, data)
    (folder / "a.xml").write_text(text, "utf-8", "surrogateescape")
    (folder / "a.bin").write_bytes(data)
    return "openvino", "a.xml"


def _in_xml(draw: Random, text: str) -> str:
    """Change the value of an attribute, an element, or lines."""
    change = draw.random()
    if change < 0.5:
        match = draw.choice(list(re.finditer(r'"[^"]*"', text)))
        return f'{text[: match.start()]}"{value(draw)}"{text[match.end() :]}'
    if change < 0.6:
        match = draw.choice(list(re.finditer(r"<(\w+)[^<>]*/>", text)))
        return text[: match.start()] + draw.choice(("", match[0] * 2, f"<a>{match[0]}</a>")) + text[match.end() :]
    return in_text(draw, text)


def make_torchscript(draw: Random, seeds: Path, folder: Path) -> Arguments:
    data = (seeds / "model" / "my.torchscript").read_bytes()
    (folder / "a.torchscript").write_bytes(in_zip(draw, data) if draw.random() < 0.7 else in_bytes(draw, data))
    return "torchscript", "a.torchscript"


# Data sets ----------------------------------------------------------------------------------------------------------------------


def changed(name: str, *others: str) -> Callable[[Random, Path, Path], Arguments]:
    """A `make` that writes the base file `name`, changed, and the other files that its reader needs."""

    def make(draw: Random, seeds: Path, folder: Path) -> Arguments:
        _base(seeds, folder, *others)
        text = (seeds / "base" / name).read_text("utf-8")
        path = folder / Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(draw, in_text(draw, text)))
        return (name,)

    return make


def run_names(name: str) -> None:
    darknet_format.class_names(name, 2, "my.cfg")


def run_list(name: str) -> None:
    for image in darknet_format.read_list(Path(name)):
        darknet_format.TextLabels()(image)
    for frame in open_frames(name):
        assert isinstance(frame, Failure) or frame.image.size


def run_labels(name: str) -> None:
    labels = darknet_format.TextLabels()(Path("0.png"))
    labels.ground_truth((48, 40))
    darknet_format.format_labels(labels)


def run_tree(name: str) -> None:
    read_tree(name)


def run_data(name: str) -> None:
    """Open a data set, check it and convert it."""
    dataset = open_data(name)
    check_dataset(dataset, next(iter(dataset.splits)), workers=1)
    for target in ("out/a.data", "out/a.json", "out/voc", "out/a.yaml"):
        write_data(dataset, target)


def make_coco(draw: Random, seeds: Path, folder: Path) -> Arguments:
    _base(seeds, folder, "0.png", "1.png")
    content = json.loads((seeds / "base" / "coco.json").read_text())
    (folder / "coco.json").write_bytes(dumped(draw, in_tree(draw, content, plain)))
    return ("coco.json",)


_XML = (
    '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;">]><annotation><filename>&y;</filename>',
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
    '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd"><annotation/>',
    '<!DOCTYPE a [<!ENTITY % p SYSTEM "http://127.0.0.1:9/a.dtd"> %p;]><annotation/>',
    *(
        f'<?xml version="1.0" encoding="{each}"?>'
        for each in "utf-7 utf-16 latin-1 rot13 idna nope cp037 big5 hex".split()
    ),
)


def make_voc(draw: Random, seeds: Path, folder: Path) -> Arguments:
    _base(seeds, folder, "voc")
    path = folder / "voc" / draw.choice(("Annotations/0.xml",) * 6 + ("ImageSets/Main/train.txt",))
    text, change = path.read_text(), draw.random()
    if change < 0.15 and path.suffix == ".xml":
        declaration = draw.choice(_XML)
        if "ENTITY y" in declaration:
            for name, of in zip("zabcdefgh", "yzabcdefg", strict=True):
                declaration = declaration.replace("]>", f'<!ENTITY {name} "{f"&{of};" * 20}">]>', 1)
        text = declaration + text[text.index("\n") :].replace("cat", draw.choice(("cat", "&y;", "&h;", "&x;")))
    elif change < 0.25:
        count = draw.choice((100, 3000, 50_000))
        text = text.replace(
            "<object>", draw.choice(("<a>" * count, "\n" * 20 * count, "&lt;" * count, "<a/>" * count)) + "<object>"
        )
    else:
        text = in_text(draw, text)
    path.write_bytes(encoded(draw, text))
    return ("voc",)


_TAGS = (
    *("!!python/object/apply:os.system ['touch ../canary']", f"!!python/object/new:eval [{CODE!r}]", "!!timestamp x"),
    *("!!int x", "!!float x", "!!binary x", "!!set {a}", "!!omap [a]", "!!merge x", "! x", "!!pairs [1]", "!!null x"),
    *("!!bool maybe", "!<tag:yaml.org,2002:bool> x", *"2001-99-99 = 0o9 0b2 1:99:99 190:20:30.15.1".split()),
)


def make_yaml(draw: Random, seeds: Path, folder: Path, name: str = "my.yaml") -> Arguments:
    _base(seeds, folder, "0.png", "1.png", "0.txt", "1.txt", "list.txt")
    text, change = (seeds / "base" / name).read_text(), draw.random()
    if change < 0.1:
        rows = [
            f"{name}: &{name} [{', '.join([f'*{of}'] * 9)}]"
            for name, of in zip("bcdefghijkl", "abcdefghijk", strict=True)
        ]
        bomb = "\n".join(["a: &a [x, x, x]", *rows[: draw.randint(1, 11)]])
        text = f"{bomb}\n{text}".replace(
            "list.txt", draw.choice(("*b", f"*{rows[-1][0]}" if len(bomb) > 300 else "*a", "*nope")), 1
        )
    elif change < 0.15:
        count = draw.choice(DEEP)
        text += draw.choice(
            ("[" * count, "- " * count, "{a: " * count, "x: " + "[" * count + "]" * count, "? " * count, "!" * count)
        )
    elif change < 0.3:
        tag = draw.choice(_TAGS)
        text = re.sub(r"list\.txt|cat", lambda _: tag, text, count=1) if draw.random() < 0.5 else f"{text}nc: {tag}\n"
    else:
        text = in_text(draw, text)
    (folder / name).write_bytes(encoded(draw, text))
    return (name,)


def make_albumentations(draw: Random, seeds: Path, folder: Path) -> Arguments:
    return make_yaml(draw, seeds, folder, "albumentations.yaml")


def run_albumentations(name: str) -> None:
    read_albumentations(name)


def make_cifar(draw: Random, seeds: Path, folder: Path) -> Arguments:
    files = dict(_files(seeds / "cifar"))
    part = folder / "set"
    part.mkdir()
    kind = draw.choice(("batch", "batch", "meta", "bin"))
    data = in_bytes(draw, files[kind]) if kind == "bin" or draw.random() < 0.3 else in_pickle(draw, files[kind])
    if draw.random() < 0.05:
        data = pickle.dumps(Evil())
    (part / "batches.meta").write_bytes(data if kind == "meta" else files["meta"])
    (part / ("data_batch_1.bin" if kind == "bin" else "data_batch_1")).write_bytes(
        files["batch"] if kind == "meta" else data
    )
    return ("set",)


def run_open(name: str) -> None:
    open_data(name)


# Images and videos --------------------------------------------------------------------------------------------------------------


def changed_image(draw: Random, files: Sequence[tuple[str, bytes]]) -> tuple[str, bytes]:
    name, data = draw.choice(files)
    change = next((change for magic, change in _IMAGE_CHANGES.items() if data.startswith(magic)), None)
    if change and draw.random() < 0.6:
        return name, change(draw, data)
    return name, in_bytes(draw, data, head=draw.choice((16, 64, 256)))


_SIDES = (0, 1, 7, 16383, 16384, 32767, 65535)


def _in_jpeg(draw: Random, data: bytes) -> bytes:
    """Change a segment before the pixels; its length fits again, most of the time."""
    segments, place = [], 2
    while data[place + 1] != 0xDA:
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        segments.append([data[place : place + 2], data[place + 4 : place + 2 + length]])
        place += 2 + length
    segment = draw.choice(segments)
    change = draw.randrange(6)
    if change < 2:
        segment[1] = in_bytes(draw, segment[1])[:65533]
    elif change == 2:
        for each in segments:
            if each[0] in (b"\xff\xc0", b"\xff\xc2"):
                each[1] = each[1][:1] + struct.pack(">HH", draw.choice(_SIDES), draw.choice(_SIDES)) + each[1][5:]
    elif change == 3:
        segments[draw.randrange(len(segments))] = list(segment)
    elif change == 4:
        segments.remove(segment)
    else:
        segment[0] = bytes((0xFF, draw.randint(0xC0, 0xFE)))
    wrong = draw.choice((0, 0, 0, 0, -3, 1, 60000))
    parts = (kind + struct.pack(">H", (len(body) + 2 + wrong) % 65536) + body for kind, body in segments)
    return data[:2] + b"".join(parts) + data[place:]


def _in_webp(draw: Random, data: bytes) -> bytes:
    """Change a chunk, or turn the file into an extended one with another canvas."""
    chunks, place = [], 12
    while place + 8 <= len(data):
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        chunks.append([data[place : place + 4], data[place + 8 : place + 8 + length]])
        place += 8 + length + length % 2
    chunk = draw.choice(chunks)
    change = draw.randrange(4)
    if change == 0:
        chunk[1] = in_bytes(draw, chunk[1], head=16)
    elif change == 1:
        chunks.insert(draw.randrange(len(chunks) + 1), list(chunk))
    elif change == 2:
        sides = b"".join((draw.choice((0, 23, 65535, 2**24 - 1))).to_bytes(3, "little") for _ in range(2))
        chunks.insert(0, [b"VP8X", bytes((draw.randrange(256), 0, 0, 0)) + sides])
    else:
        chunk[0] = draw.choice((b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF"))
    parts = (kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2) for kind, body in chunks)
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body) if draw.random() < 0.9 else draw.choice((0, 2**32 - 1))) + body


def _in_gif(draw: Random, data: bytes) -> bytes:
    """Change the sizes of the screen or of the first image, flags, or the pixels' code size."""
    out = bytearray(data)
    start = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    first = max(data.find(b"\x2c", start), start)
    for _ in range(draw.choice((1, 1, 2))):
        place = draw.choice((6, 8, first + 1, first + 3, first + 5, first + 7))
        out[place : place + 2] = struct.pack("<H", draw.choice(_SIDES))
        if draw.random() < 0.3:
            place = draw.choice((4, 10, 11, first, first + 9, first + 10))
            out[place : place + 1] = draw.randbytes(1)
    return bytes(out)


def _in_tiff(draw: Random, data: bytes) -> bytes:
    """Change entries of the first directory: tag, type, count or value."""
    out = bytearray(data)
    order = "<" if data[:2] == b"II" else ">"
    (begin,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, begin)
    for _ in range(draw.choice((1, 1, 2, 3))):
        entry = begin + 2 + 12 * draw.randrange(count)
        change = draw.randrange(8)
        if change == 0:
            struct.pack_into(
                f"{order}H", out, entry, draw.choice((254, 256, 258, 259, 273, 277, 279, 317, 322, 324, 339))
            )
        elif change == 1:
            struct.pack_into(f"{order}H", out, entry + 2, draw.randrange(20))
        elif change == 2:
            struct.pack_into(f"{order}I", out, entry + 4, draw.choice((0, 1, 2, 1000, 2**31, 2**32 - 1)))
        elif change == 3:
            struct.pack_into(f"{order}I", out, 4, draw.choice((0, 4, begin - 2, begin + 1, len(data), 2**32 - 1)))
        else:
            struct.pack_into(
                f"{order}I", out, entry + 8, draw.choice((*_SIDES, 2, 3, 5, 8, 100, begin, 2**31, 2**32 - 1))
            )
    return bytes(out)


def _in_png(draw: Random, data: bytes) -> bytes:
    """Change a chunk and repair its checksum."""
    chunks, place = [], 8
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append([data[place + 4 : place + 8], data[place + 8 : place + 8 + length]])
        place += 12 + length
    chunk = draw.choice(chunks)
    change = draw.randrange(5)
    if change == 0:
        chunk[1] = in_bytes(draw, chunk[1])
    elif change == 1:
        sides = [draw.choice((0, 1, 7, 16384, 65535, 2**31 - 1, 2**32 - 1)) for _ in range(2)]
        chunks[0][1] = struct.pack(">II", *sides) + chunks[0][1][8:]
    elif change == 2:
        chunks.insert(draw.randrange(len(chunks)), list(chunk))
    elif change == 3:
        chunks.remove(chunk)
    else:
        pixels = zlib.compress(bytes(draw.choice((0, 100, 10**7))))
        chunks = [[name, pixels if name == b"IDAT" else content] for name, content in chunks]
    parts = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return data[:8] + b"".join(parts)


_IMAGE_CHANGES: dict[bytes, Callable[[Random, bytes], bytes]] = {
    b"\x89PNG": _in_png,
    b"\xff\xd8": _in_jpeg,
    b"RIFF": _in_webp,
    b"GIF8": _in_gif,
    b"II*": _in_tiff,
    b"MM\0*": _in_tiff,
}


def make_image(draw: Random, seeds: Path, folder: Path) -> Arguments:
    name, data = changed_image(draw, _files(seeds / "image"))
    (folder / name).write_bytes(data)
    return (name,)


def run_image(name: str) -> None:
    image_header(name)
    assert read_image(name).shape[2] == 3


def make_video(draw: Random, seeds: Path, folder: Path) -> Arguments:
    name, data = draw.choice(_files(seeds / "video"))
    if draw.random() < 0.5:
        boxes = [
            match.start()
            for match in re.finditer(
                rb"moov|trak|mdia|stsd|stts|stsz|stco|stsc|mvhd|tkhd|avcC|LIST|strh|strf|idx1", data
            )
        ]
        if boxes:
            place = draw.choice(boxes) + draw.randint(-4, 60)
            data = data[:place] + in_bytes(draw, data[place : place + 32]) + data[place + 32 :]
    data = in_bytes(draw, data, head=200) if draw.random() < 0.6 else data
    if draw.random() < 0.02:
        data = draw.choice(
            (
                b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
                b"ffconcat version 1.0\nfile /etc/passwd\n",
                b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
            )
        )
    (folder / name).write_bytes(data)
    return (name,)


def run_video(name: str) -> None:
    with open_frames(name) as frames:
        for number, frame in enumerate(frames):
            if isinstance(frame, Failure) or number > 100:
                break


# Requests -----------------------------------------------------------------------------------------------------------------------


_FORM = "multipart/form-data"
_ADDRESSES = (
    *("/detect",) * 6,
    *("/stream",) * 3,
    *("/", "/model", "/metrics", "/nowhere", "/../../etc/passwd", "/page.js/..", "//", ""),
)


def make_request(draw: Random, seeds: Path, folder: Path) -> Arguments:
    kinds = ("image",) * 6 + ("video",)
    files = [each for each in _files(seeds / draw.choice(kinds)) if len(each[1]) < 100_000]
    kind = draw.choice(
        (*"image/jpeg application/octet-stream video/mp4 text/plain".split(), "", "image/" + "a" * 5000, _FORM)
    )
    body = draw.choice(files)[1] if draw.random() < 0.3 else changed_image(draw, files)[1]
    if draw.random() < 0.3:
        name = draw.choice(("a.jpg", "../../outside/x", 'a"b', "é", "a" * 3000))
        form = f'--b\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'.encode()
        body = form + body + b"\r\n--b--\r\n"
        body = in_bytes(draw, body, head=150) if draw.random() < 0.6 else body
        kind = draw.choice((f"{_FORM}; boundary=b",) * 5 + (_FORM, f"{_FORM}; boundary={'b' * 300}"))
    odd = (f"conf={value(draw)}", f"{value(draw)}={value(draw)}", "conf=%ff%00", "&&&=")
    query = draw.choice(("", "", "conf=0.5", "iou=0", "images=1", *odd))
    path = draw.choice(_ADDRESSES)
    headers = [(b"host", draw.choice((b"127.0.0.1", b"127.0.0.1", b"localhost:8000", b"evil.test", b"")))]
    if kind:
        headers.append((b"content-type", kind.encode("latin-1", "replace")))
    for _ in range(draw.choice((0, 0, 1, 3))):
        header = draw.choice(
            b"content-length origin range transfer-encoding expect authorization cookie accept".split()
        )
        headers.append((header, value(draw).encode("utf-8", "surrogatepass")[:2000]))
    method = draw.choice(("POST",) * 8 + ("GET", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "", "post"))
    third = len(body) // 3
    parts: list[bytes | None] = [body[:third], body[third : 2 * third], body[2 * third :]]
    if draw.random() < 0.05:
        parts.append(None)  # the client disconnects
    (folder / "body").write_bytes(body)
    (folder / "request.json").write_text(json.dumps([method, path, query, [[str(k), str(v)] for k, v in headers]]))
    return method, path, query.encode("utf-8", "surrogatepass"), headers, parts


def serve_small(seeds: Path) -> None:
    """Create the application that serve.py runs, with one decoding process."""
    from serving import service
    from serving.app import Limits, make_app

    base = seeds / "base"
    model = open_model(base / "my.weights", cfg=base / "my.cfg", names=base / "my.names", device="cpu")
    service._LEAST_READERS = service._MOST_READERS = 1
    limits = Limits(upload_bytes=10**6, upload_s=10, queue=16, hosts=("127.0.0.1", "localhost"), token=None)
    _served.append(make_app(service.DetectionService(model, most_frames=10), "small", limits))


_served: list[Any] = []
_ANSWERS = {200, 307, 400, 403, 404, 405, 408, 413, 415, 422, 499}


def run_request(
    method: str, path: str, query: bytes, headers: list[tuple[bytes, bytes]], parts: list[bytes | None]
) -> None:
    """Raises InputError for a status of 400 or above, AssertionError for an incomplete or undocumented response."""
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http", "path": path,
             "raw_path": path.encode(), "query_string": query, "root_path": "", "headers": headers, "client": ("127.0.0.1", 5),
             "server": ("127.0.0.1", 8000), "extensions": {}}  # fmt: skip
    left, sent = list(parts), []

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.sleep(3600)
        part = left.pop(0)
        return (
            {"type": "http.disconnect"}
            if part is None
            else {"type": "http.request", "body": part, "more_body": bool(left)}
        )

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    try:
        asyncio.run(_served[0](scope, receive, send))
    except Exception as error:
        if type(error).__name__ != "ClientDisconnect":
            raise
        raise InputError("the client went away") from None
    assert sent and sent[0]["type"] == "http.response.start", "no answer"
    status, answer = sent[0]["status"], b"".join(each.get("body", b"") for each in sent[1:])
    assert status in _ANSWERS, f"status {status}"
    assert b"Traceback" not in answer and b"root:" not in answer, "the answer shows what it must not"
    if status >= 400:
        raise InputError(f"{status}")


# Command lines ------------------------------------------------------------------------------------------------------------------

SCRIPTS = {name: module for name, (module, _) in COMMANDS.items() if name != "compose"}
_PATHS = (
    *"my.cfg classifier.cfg my.weights my.names my.data my.yaml coco.json voc list.txt 0.png 0.txt . nowhere nowhere/x".split(),
    *"my.pt my.safetensors boxes.onnx my.xml my.torchscript a.avi last.pt out out/a.png out/a.mp4 out/a.weights".split(),
    *"out/a.pt out/a.json out/a *.png 0.png/x".split(),
)
_SMALL = (
    *"0 -1 1 2 3 32 33 64 nan inf -inf 0.5 1e-9 1.5 1e400 x 99999999999 2147483648 18446744073709551616".split(),
    *("", HUGE[:400]),
)
_ODD = (
    *"- -- é %s {0} .. / http://127.0.0.1:9/a.mp4 rtsp://127.0.0.1:9/x http:// cpu 0 cuda:7 mps mp4v".split(),
    *("éééé", "DIVX", "none", "all", "", "\u202e", "\udcff", "a" * 300, CODE),
)
_START = {
    "detect": "--cfg my.cfg --weights my.weights --source 0.png --project out",
    "train": "--cfg my.cfg --data my.data --iterations 1 --project out --workers 0 --no-plots",
    "test": "--cfg my.cfg --weights my.weights --data my.data --project out --no-plots",
    "info": "--cfg my.cfg",
    "export": "--cfg my.cfg --weights my.weights --include onnx --out out/a",
    "serve": "--cfg my.cfg --weights my.weights --port 0",
}
_CONVERT = {
    "labels": "--from my.data --to out/a.json",
    "weights": "--cfg my.cfg --weights my.weights --out out/a.pt",
    "partial": "--cfg my.cfg --weights my.weights --layers 1 --out out/a.weights",
    "fold": "--cfg my.cfg --weights my.weights --out out/a.weights --out-cfg out/a.cfg",
    "compare": "my.weights my.pt --cfg my.cfg",
    "fetch": "yolov4 --url http://127.0.0.1:9/x --out out",
}
# Flags that would only make an accepted run longer, open a window, or execute code by design.
_LEFT_OUT = set("--trust-pickle --help -h --version --view-img --iterations --epochs --workers --tensorboard".split())


@functools.cache
def _parser(name: str) -> argparse.ArgumentParser:
    found: list[argparse.ArgumentParser] = []
    before = argparse.ArgumentParser.parse_args

    def caught(self: argparse.ArgumentParser, *_: Any, **__: Any) -> Any:
        found.append(self)
        raise InputError("caught")

    argparse.ArgumentParser.parse_args = caught  # type: ignore[method-assign]
    try:
        importlib.import_module(SCRIPTS[name]).parse_arguments([])
    except InputError:
        pass
    finally:
        argparse.ArgumentParser.parse_args = before  # type: ignore[method-assign]
    return found[0]


def make_command(name: str) -> Callable[[Random, Path, Path], Arguments]:
    """A `make` that writes a data set with models, and draws flags of the script `name` with good and bad values."""

    def make(draw: Random, seeds: Path, folder: Path) -> Arguments:
        shutil.copytree(seeds / "base", folder, dirs_exist_ok=True)
        shutil.copytree(seeds / "model", folder, dirs_exist_ok=True)
        shutil.copy(seeds / "video" / "a.avi", folder)
        words = _darknet_words(draw) if name == "darknet" else _script_words(draw, name)
        (folder / "command.json").write_text(json.dumps([name, *words]))
        return name, words

    return make


def _value_for(draw: Random, action: argparse.Action) -> str:
    if action.choices and draw.random() < 0.8:
        return str(draw.choice(list(action.choices)))
    if action.type in (None, str):
        return draw.choice(_PATHS) if draw.random() < 0.7 else draw.choice((*_ODD, *_SMALL))
    return draw.choice(_SMALL) if draw.random() < 0.9 else draw.choice(_ODD)


def _script_words(draw: Random, name: str) -> list[str]:
    parser, words = _parser(name), _START.get(name, "").split()
    if name == "convert":
        (commands,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
        chosen = draw.choice(sorted(commands.choices))
        parser, words = commands.choices[chosen], [chosen, *_CONVERT.get(chosen, "").split()]
    actions = [
        each for each in parser._actions if each.option_strings and not _LEFT_OUT.intersection(each.option_strings)
    ]
    for _ in range(draw.choice((1, 1, 2, 3, 5))):
        action = draw.choice(actions)
        many = action.nargs in ("+", "*") or isinstance(action.nargs, int)
        count = 0 if action.nargs == 0 else draw.choice((1, 1, 2, 3)) if many else 1
        words += [draw.choice(action.option_strings), *(_value_for(draw, action) for _ in range(count))]
    for _ in range(draw.choice((0, 0, 0, 1, 2))):
        place = draw.randrange(len(words))
        change = draw.randrange(3)
        if change == 0:
            del words[place]
        elif change == 1:
            words[place] = draw.choice((*_PATHS, *_ODD, *_SMALL))
        else:
            words.insert(place, draw.choice((*_PATHS, *_ODD, *_SMALL)))
        if not words:
            break
    if "fetch" in words:  # never access the real address
        words = ["fetch", *(word for word in words if word != "fetch"), "--url", "http://127.0.0.1:9/x"]
    return words


_DARKNET = (
    "detector test my.data my.cfg my.weights 0.png -dont_show",
    "detector map my.data my.cfg my.weights",
    "detector valid my.data my.cfg my.weights",
    "detector recall my.data my.cfg my.weights",
    "detector calc_anchors my.data -num_of_clusters 2 -width 64 -height 64",
    "detector demo my.data my.cfg my.weights a.avi -dont_show",
    "detector train my.data my.cfg -dont_show",
    "classifier predict my.data classifier.cfg none 0.png",
    "classifier valid my.data classifier.cfg",
    "partial my.cfg my.weights out.weights 1",
    "average my.cfg out.weights my.weights my.weights",
    "reset my.cfg my.weights out.weights",
    "normalize my.cfg my.weights out.weights",
    "denormalize my.cfg my.weights out.weights",
    "rescale my.cfg my.weights out.weights",
    "rgbgr my.cfg my.weights out.weights",
    "statistics my.cfg my.weights",
    "ops my.cfg",
    "imtest 0.png",
    "detect my.cfg my.weights 0.png -dont_show",
)


def _darknet_words(draw: Random) -> list[str]:
    words = draw.choice(_DARKNET).split()
    flags = sorted(grammar._FLAGS["detector"])
    for _ in range(draw.choice((0, 1, 1, 2, 4))):
        flag = draw.choice(flags)
        if flag in ("-http_post_host", "-mjpeg_port", "-json_port", "-benchmark", "-show_imgs", "-show"):
            continue
        words += [flag, draw.choice((*_SMALL, *_PATHS))] if draw.random() < 0.8 else [flag]
    for _ in range(draw.choice((0, 1, 1, 2))):
        words[draw.randrange(len(words))] = draw.choice((*_PATHS, *_ODD, *_SMALL))
    return words


def run_command(name: str, words: list[str]) -> None:
    """Raises InputError for exit codes 1 and 2, AssertionError for any other code except 0."""
    if name == "serve":
        import uvicorn

        uvicorn.Server.run = lambda self, sockets=None: None  # type: ignore[method-assign]
    try:
        code: Any = run_script([name, *words])
    except SystemExit as ended:
        code = ended.code
    assert code in (0, 1, 2), f"exit code {code}"
    if code:
        raise InputError(f"exit code {code}")


def make_resume(draw: Random, seeds: Path, folder: Path) -> Arguments:
    """Change the content of a checkpoint that a training then resumes."""
    shutil.copytree(seeds / "base", folder, dirs_exist_ok=True)
    content = torch.load(seeds / "model" / "last.pt", weights_only=True)
    content["cfg"] = content["cfg"].replace("max_batches=2", "max_batches=3")
    part = draw.choice([key for key in content if content[key]])
    if isinstance(content[part], dict | list) and draw.random() < 0.8:
        content[part] = in_tree(draw, content[part], _tensor_or_plain)
    else:
        content[part] = _tensor_or_plain(draw)
    (folder / "run" / "exp" / "weights").mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, folder / "run" / "exp" / "weights" / "last.pt")
    return "train", ["--resume", "run/exp/weights/last.pt", "--workers", "0"]


COMMAND_S = 60.0  # an accepted command does all of its work

TARGETS = {
    target.name: target
    for target in (
        Target(name="cfg", make=make_cfg, run=run_cfg),
        Target(name="network", make=make_network, run=run_network),
        Target(name="weights", make=make_weights, run=run_weights),
        Target(name="pt", make=make_archive, run=run_archive),
        Target(name="safetensors", make=make_safetensors, run=run_safetensors),
        Target(name="onnx", make=make_onnx, run=run_exported),
        Target(name="openvino", make=make_openvino, run=run_exported),
        Target(name="torchscript", make=make_torchscript, run=run_exported),
        Target(
            name="data",
            make=changed("my.data", "list.txt", "my.names", "0.png", "1.png", "0.txt", "1.txt"),
            run=run_data,
        ),
        Target(name="names", make=changed("my.names"), run=run_names, slice_s=20),
        Target(
            name="list",
            make=changed("list.txt", "0.png", "1.png", "0.txt", "1.txt"),
            run=run_list,
        ),
        Target(name="labels", make=changed("0.txt"), run=run_labels),
        Target(name="tree", make=changed("my.tree"), run=run_tree, slice_s=20),
        Target(name="coco", make=make_coco, run=run_data),
        Target(name="voc", make=make_voc, run=run_data, seconds=20, slice_s=8),  # data sets with thousands of images
        Target(name="yaml", make=make_yaml, run=run_data),
        Target(name="albumentations", make=make_albumentations, run=run_albumentations),
        Target(name="cifar", make=make_cifar, run=run_open),
        Target(name="image", make=make_image, run=run_image, slice_s=40),
        Target(name="video", make=make_video, run=run_video),
        Target(name="http", make=make_request, run=run_request, begin=serve_small, slice_s=24),
        Target(name="resume", make=make_resume, run=run_command, seconds=COMMAND_S),
        *(
            Target(
                name=f"{name}.py",
                make=make_command(name),
                run=run_command,
                seconds=COMMAND_S,
                is_command=True,
                slice_s=8 if name in ("info", "serve") else 4,
            )
            for name in SCRIPTS
        ),
    )
}

"""The working folder of the recorded commands: cfgs, weights, images, labels and data files, all drawn or computed here.

Pixels come from integer arithmetic and are stored as PNG, so every decoder returns the same values. Only det.weights is a file:
the original trained it on these images. SETUP holds what single commands need in addition.
"""

from __future__ import annotations

import shutil
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from models.network import Network
from models.plan import read_plan
from tests.paths import REFERENCE
from tests.recipe import weights_file

NET = """[net]
batch=2
subdivisions=1
width={width}
height={height}
channels=3
momentum=0.9
decay=0.0005
angle=0
saturation=1
exposure=1
hue=0
flip=0
learning_rate=0.001
burn_in=0
max_batches={max_batches}
policy=steps
steps=60,90
scales=.1,.1
{extra}
"""
CONV = """
[convolutional]
batch_normalize=1
filters={filters}
size={size}
stride={stride}
pad=1
activation=leaky
"""
LINEAR = """
[convolutional]
size=1
stride=1
pad=1
filters={filters}
activation=linear
"""
YOLO = """
[yolo]
mask={mask}
anchors=8,10, 20,14, 18,36, 40,30
classes=3
num=4
jitter=0
resize=1
ignore_thresh=.7
truth_thresh=1
random=0
{extra}
"""


def detector_cfg(net: str = "", yolo: str = "", width: int = 96, height: int = 64, max_batches: int = 100) -> str:
    """Two heads (strides 32 and 16), three classes."""
    c = CONV.format
    return "".join(
        (
            NET.format(width=width, height=height, max_batches=max_batches, extra=net),
            c(filters=6, size=3, stride=2),
            c(filters=8, size=3, stride=2),
            c(filters=10, size=3, stride=2),
            c(filters=12, size=3, stride=2),
            c(filters=16, size=3, stride=2),
            LINEAR.format(filters=16),
            YOLO.format(mask="2,3", extra=yolo),
            "\n[route]\nlayers=-3\n",
            "\n[upsample]\nstride=2\n",
            "\n[route]\nlayers=-1,3\n",
            LINEAR.format(filters=16),
            YOLO.format(mask="0,1", extra=yolo),
        )
    )


REGION = (
    NET.format(width=96, height=64, max_batches=100, extra="")
    + CONV.format(filters=6, size=3, stride=4)
    + CONV.format(filters=8, size=3, stride=4)
    + LINEAR.format(filters=24)
    + "\n[region]\nanchors=1.0,1.5, 2.2,1.1, 0.5,0.4\nclasses=3\ncoords=4\nnum=3\nsoftmax=1\n"
)
GAUSSIAN = (
    NET.format(width=96, height=64, max_batches=100, extra="")
    + CONV.format(filters=6, size=3, stride=4)
    + CONV.format(filters=8, size=3, stride=4)
    + LINEAR.format(filters=36)
    + "\n[Gaussian_yolo]\nmask=0,1,2\nanchors=8,10, 20,14, 18,36\nclasses=3\nnum=3\n"
)
CLASSIFIER = (
    NET.format(width=32, height=32, max_batches=12, extra="")
    + CONV.format(filters=6, size=3, stride=2)
    + CONV.format(filters=8, size=3, stride=2)
    + LINEAR.format(filters=4)
    + "\n[avgpool]\n\n[softmax]\ngroups=1\n"
)
CONNECTED = (
    NET.format(width=16, height=16, max_batches=100, extra="")
    + CONV.format(filters=4, size=3, stride=2)
    + "\n[connected]\noutput=5\nactivation=leaky\nbatch_normalize=1\n"
    + "\n[connected]\noutput=4\nactivation=linear\n"
    + "\n[softmax]\ngroups=1\n"
)
WEIGHTED = (  # other tensors of a weights file: weighted shortcut, implicit, batchnorm, groups, shared weights
    NET.format(width=32, height=32, max_batches=100, extra="")
    + CONV.format(filters=4, size=3, stride=2)
    + CONV.format(filters=4, size=3, stride=1)
    + "\n[shortcut]\nfrom=-2\nactivation=linear\nweights_type=per_channel\nweights_normalization=softmax\n"
    + "\n[batchnorm]\n"
    + "\n[convolutional]\nbatch_normalize=1\nfilters=8\ngroups=4\nsize=3\nstride=2\npad=1\nactivation=mish\n"
    + LINEAR.format(filters=16)
    + YOLO.format(mask="2,3", extra="")
)
IMAGENET = (  # one box with 200 classes, as eval=imagenet expects
    NET.format(width=32, height=32, max_batches=100, extra="")
    + CONV.format(filters=6, size=3, stride=8)
    + CONV.format(filters=8, size=3, stride=4)
    + LINEAR.format(filters=205)
    + YOLO.format(mask="1", extra="").replace("classes=3", "classes=200")
)
BDD = IMAGENET.replace("filters=205", "filters=15").replace("classes=200", "classes=10")
CFGS = {
    "det": (detector_cfg(), None, 0.0),
    "detbox": (detector_cfg(net="letter_box=1"), None, 0.0),
    "greedy": (detector_cfg(yolo="nms_kind=greedynms\nbeta_nms=0.6"), None, 0.0),
    "train": (detector_cfg(width=64, height=64, max_batches=12), 5, 1.0),
    "train100": (detector_cfg(width=64, height=64, max_batches=104), 5, 1.0),
    "region": (REGION, 7, 0.8),
    "gaussian": (GAUSSIAN, 11, 1.0),
    "cls": (CLASSIFIER, 13, 1.5),
    "fc": (CONNECTED, 17, 1.0),
    "in200": (IMAGENET, 23, 1.0),
    "bdd": (BDD, 29, 1.0),
    "fconly": (CONNECTED.replace("batch_normalize=1\nfilters", "filters"), 31, 1.0),
    "mixed": (WEIGHTED, 19, 1.0),
}
# Stem of cfg/*.cfg and *.weights -> text, seed and gain of tests/recipe.py; seed None: det.weights.

SIZES = ((120, 80), (64, 96), (96, 64), (100, 100), (33, 57), (160, 90))
LABELS = (
    ((0, 0.30, 0.40, 0.20, 0.30), (1, 0.70, 0.60, 0.30, 0.40)),
    ((2, 0.50, 0.50, 0.60, 0.20),),
    ((0, 0.20, 0.25, 0.25, 0.35), (0, 0.75, 0.70, 0.30, 0.30), (1, 0.55, 0.30, 0.20, 0.20)),
    ((1, 0.45, 0.55, 0.50, 0.60), (2, 0.15, 0.80, 0.20, 0.25)),
    (),
    ((2, 0.60, 0.45, 0.35, 0.55),),
)


def drawn(number: int, width: int, height: int) -> np.ndarray:
    """A pattern with the boxes of LABELS on it, as uint8 RGB (height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    planes = ((x * 3 + number * 40) % 256, (y * 5 + number * 17) % 256, ((x + y) * 2 + number * 90) % 256)
    image = np.stack(planes, axis=2).astype(np.uint8)
    for class_id, cx, cy, w, h in LABELS[number % len(LABELS)]:
        left, top = int((cx - w / 2) * width), int((cy - h / 2) * height)
        image[top : top + int(h * height), left : left + int(w * width)] = (
            (200, 30, 40),
            (20, 190, 60),
            (40, 60, 220),
        )[class_id]
    return image


def png(image: np.ndarray) -> bytes:
    """Encode uint8 RGB (height, width, 3) as PNG."""
    height, width, _ = image.shape
    rows = b"".join(b"\0" + row.tobytes() for row in image)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def write_inputs(folder: Path) -> None:
    """Write the files that every command may use."""
    for name in ("cfg", "data", "img", "results", "backup", "cls"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for stem, (text, seed, gain) in CFGS.items():
        (folder / "cfg" / f"{stem}.cfg").write_text(text)
        if seed is None:  # same structure: the weights that the original trained on the images below, 200 updates
            data = (REFERENCE / "commands" / "det.weights").read_bytes()
        else:
            data = weights_file(Network(read_plan(folder / "cfg" / f"{stem}.cfg")).tensors(), seed, gain)
        (folder / f"{stem}.weights").write_bytes(data)
    for number, size in enumerate(SIZES):
        (folder / "img" / f"a{number}.png").write_bytes(png(drawn(number, *size)))
        lines = "".join(f"{c} {x} {y} {w} {h}\n" for c, x, y, w, h in LABELS[number])
        (folder / "img" / f"a{number}.txt").write_text(lines)
    (folder / "img" / "nolabel.png").write_bytes(png(drawn(2, 50, 70)))
    names = "cat\ndog\ntraffic light\n"
    (folder / "data" / "tiny.names").write_text(names)
    (folder / "data" / "odd.names").write_text('say "hi"\ndont_show this\nback\\slash é\n')
    (folder / "data" / "two.names").write_text("cat\ndog\n")
    (folder / "data" / "all.txt").write_text("".join(f"img/a{n}.png\n" for n in range(6)))
    (folder / "data" / "one.txt").write_text("img/a0.png\n")
    (folder / "data" / "gap.txt").write_text("img/a0.png\nimg/nolabel.png\nimg/a2.png\n")
    base = "classes=3\ntrain=data/all.txt\nvalid=data/all.txt\nnames=data/tiny.names\nbackup=backup\nresults=results\n"
    (folder / "data" / "tiny.data").write_text(base)
    (folder / "cfg" / "coco.data").write_text(base)
    for kind in ("coco", "imagenet", "bdd", "kitti", "voc"):
        (folder / "data" / f"{kind}.data").write_text(base + f"eval={kind}\n")
    (folder / "data" / "odd.data").write_text(base.replace("tiny.names", "odd.names"))
    (folder / "data" / "two.data").write_text(base.replace("tiny.names", "two.names"))
    (folder / "data" / "gap.data").write_text(base.replace("valid=data/all.txt", "valid=data/gap.txt"))
    (folder / "data" / "train.data").write_text(base.replace("data/all.txt", "data/one.txt"))
    (folder / "data" / "save.data").write_text(
        base.replace("data/all.txt", "data/one.txt") + "saveweights=6\nsavelast=5\n"
    )
    (folder / "data" / "hard.txt").write_text("".join(f"hard/a{n}.png\n" for n in range(6)))
    (folder / "hard").mkdir(exist_ok=True)
    for number in range(6):
        (folder / "hard" / f"a{number}.txt").write_text("0 0.5 0.5 0.9 0.9\n" if number % 2 else "")
    (folder / "data" / "hard.data").write_text(base + "difficult=data/hard.txt\n")
    (folder / "data" / "in200.names").write_text("".join(f"thing {n}\n" for n in range(200)))
    (folder / "data" / "bdd10.names").write_text("".join(f"thing {n}\n" for n in range(10)))
    two = base.replace("valid=data/all.txt", "valid=data/ids.txt")
    (folder / "data" / "in200.data").write_text(
        two.replace("classes=3", "classes=200").replace("tiny.names", "in200.names") + "eval=imagenet\n"
    )
    (folder / "data" / "bdd10.data").write_text(
        two.replace("classes=3", "classes=10").replace("tiny.names", "bdd10.names") + "eval=bdd\n"
    )
    # Image names as in COCO: the id is what atoi reads at the start of the name
    for number, name in enumerate(("000000000139.png", "000000000285.png")):
        (folder / "img" / name).write_bytes(png(drawn(number, *SIZES[number])))
    (folder / "data" / "ids.txt").write_text("img/000000000139.png\nimg/000000000285.png\n")
    for kind in ("coco", "voc"):
        text = base.replace("valid=data/all.txt", "valid=data/ids.txt") + f"eval={kind}\n"
        (folder / "data" / f"ids_{kind}.data").write_text(text)
    # classification: the class is the label found in the path
    labels = ("apple", "pear", "plum", "fig")
    for number in range(8):
        path = folder / "cls" / f"{labels[number % 4]}_{number}.png"
        path.write_bytes(png(drawn(number % 6, 40 + number, 36 + 2 * number)))
    (folder / "data" / "cls.txt").write_text("".join(f"cls/{labels[n % 4]}_{n}.png\n" for n in range(8)))
    (folder / "data" / "cls.labels").write_text("".join(f"{label}\n" for label in labels))
    (folder / "data" / "cls.names").write_text("Apple\nPear\nPlum\nFig\n")
    text = "classes=4\ntrain=data/cls.txt\nvalid=data/cls.txt\ntest=data/cls.txt\nlabels=data/cls.labels\nnames=data/cls.names\n"
    (folder / "data" / "cls.data").write_text(text + "backup=backup\ntop=2\n")
    (folder / "data" / "cls5.data").write_text(text.replace("classes=4", "classes=5") + "backup=backup\n")


Setup = Callable[[Path], None]


def _files(**texts: str) -> Setup:
    """A setup that writes text files; in a name, a double underscore means a slash, a single one the last dot."""

    def setup(folder: Path) -> None:
        for name, text in texts.items():
            (folder / name.replace("__", "/").replace("_", ".")).write_text(text)

    return setup


def _changed(stem: str, out: str, *pairs: tuple[str, str]) -> Setup:
    """A setup that writes a cfg with replaced text, and the weights under its name."""

    def setup(folder: Path) -> None:
        text = (folder / "cfg" / f"{stem}.cfg").read_text()
        for old, new in pairs:
            assert old in text, old
            text = text.replace(old, new)
        (folder / "cfg" / f"{out}.cfg").write_text(text)
        shutil.copy(folder / f"{stem}.weights", folder / f"{out}.weights")

    return setup


def _seen(count: int) -> Setup:
    def setup(folder: Path) -> None:
        path = folder / "train.weights"
        data = path.read_bytes()
        path.write_bytes(data[:12] + count.to_bytes(8, "little") + data[20:])

    return setup


def _other_weights(folder: Path) -> None:
    """Write STEM2.weights and STEM3.weights: STEM.weights times 0.5 and 1.75."""
    for stem in ("det", "mixed", "fc", "cls"):
        data = (folder / f"{stem}.weights").read_bytes()
        floats = np.frombuffer(data[20:], "<f4")
        for number, factor in ((2, np.float32(0.5)), (3, np.float32(1.75))):
            (folder / f"{stem}{number}.weights").write_bytes(data[:20] + (floats * factor).astype("<f4").tobytes())


def _zero_weights(folder: Path) -> None:
    """Write zero.weights: for det.cfg, with heads that find nothing."""
    data = (folder / "det.weights").read_bytes()
    floats, at = np.frombuffer(data[20:], "<f4").copy(), 0
    sizes = ((6, 27, 4), (8, 54, 4), (10, 72, 4), (12, 90, 4), (16, 108, 4), (16, 16, 1), (16, 28, 1))
    for filters, inputs, vectors in sizes:
        end = at + filters * (vectors + inputs)
        if vectors == 1:
            floats[at:end] = 0
            floats[at : at + filters] = -20
        at = end
    assert at == len(floats)
    (folder / "zero.weights").write_bytes(data[:20] + floats.tobytes())


def _anchor_set(folder: Path) -> None:
    """Write boxes in three tight clusters, so that k-means finds the same anchors from any good start."""
    (folder / "anc").mkdir()
    for n in range(12):
        sizes = ((0.10, 0.15), (0.30, 0.25), (0.60, 0.80))
        lines = [
            f"{k if n % 2 else 0} 0.5 0.5 {w + 0.001 * n:.3f} {h - 0.002 * (n % 5):.3f}\n"
            for k, (w, h) in enumerate(sizes)
        ]
        (folder / "anc" / f"b{n}.txt").write_text("".join(lines))
    (folder / "data" / "anc.txt").write_text("".join(f"anc/b{n}.png\n" for n in range(12)))
    text = "classes=3\ntrain=data/anc.txt\nvalid=data/anc.txt\nnames=data/tiny.names\n"
    (folder / "data" / "anc.data").write_text(text)


def write_video(path: Path, size_wh: tuple[int, int], frames: int, fps: int) -> None:
    """Write a lossless video of the frames drawn(0), drawn(1), ..."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MPNG"), fps, size_wh)
    assert writer.isOpened()
    for n in range(frames):
        writer.write(np.ascontiguousarray(drawn(n, *size_wh)[:, :, ::-1]))
    writer.release()


def _videos(folder: Path) -> None:
    write_video(folder / "clip.avi", (96, 64), 12, 10)
    write_video(folder / "wide.avi", (160, 90), 8, 25)
    (folder / "data" / "four.data").write_text("classes=4\nnames=data/tiny.names\n")


def _turned(folder: Path) -> None:
    """Write img/turned.jpg: stored sideways with EXIF orientation 6 (to be rotated clockwise)."""
    stored = np.ascontiguousarray(np.rot90(drawn(2, 64, 96), 1))
    data = cv2.imencode(".jpg", stored[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    tiff = b"II*\x00" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, 6, 0)
    body = b"Exif\x00\x00" + tiff
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    (folder / "img" / "turned.jpg").write_bytes(data)
    (folder / "img" / "turned.txt").write_text("0 0.2 0.25 0.25 0.35\n")
    (folder / "data" / "turned.txt").write_text("img/turned.jpg\n")
    lists = "train=data/turned.txt\nvalid=data/turned.txt\n"
    text = f"classes=3\n{lists}names=data/tiny.names\nbackup=backup\nresults=results\neval=coco\n"
    (folder / "data" / "turned.data").write_text(text)


def _damaged(folder: Path) -> None:
    (folder / "img" / "broken.png").write_bytes((folder / "img" / "a0.png").read_bytes()[:200])
    (folder / "img" / "broken.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    rest = "names=data/tiny.names\nbackup=backup\nresults=results\n"
    for name, entries in (
        ("broken", "img/a0.png\nimg/broken.png\nimg/gone.png\n"),
        ("blank", "img/a0.png\n\nimg/a2.png\n\n"),
    ):
        (folder / "data" / f"{name}.txt").write_text(entries)
        (folder / "data" / f"{name}.data").write_text(
            f"classes=3\ntrain=data/{name}.txt\nvalid=data/{name}.txt\n{rest}"
        )
    (folder / "data" / "crlf.txt").write_bytes(b"img/a0.png\r\nimg/a2.png\r\n")
    (folder / "data" / "crlf.data").write_bytes(b"classes=3\r\nvalid = data/crlf.txt\r\nnames=data/tiny.names\r\n")


def _coco(pictures: str, extra: str = "") -> Setup:
    folder = "shared/weights/yolo-fastest-1.1_coco"
    text = f"classes=80\nvalid=data/pictures.txt\nnames={folder}/coco.names\nbackup=backup\nresults=results\n{extra}"
    lines = "".join(f"shared/datasets/pictures/{name}.png\n" for name in pictures.split())
    return _files(data__coco80_data=text, data__pictures_txt=lines)


def _missing_class_image(folder: Path) -> None:
    (folder / "data" / "cls_missing.txt").write_text("cls/pear_1.png\ncls/none_fig.png\n")
    text = "classes=4\nvalid=data/cls_missing.txt\nlabels=data/cls.labels\ntop=2\n"
    (folder / "data" / "cls_missing.data").write_text(text)


def _copy(source: str, target: str) -> Setup:
    def setup(folder: Path) -> None:
        shutil.copy(folder / source, folder / target)

    return setup


def _old_chart(folder: Path) -> None:
    cv2.imwrite(str(folder / "old.png"), np.full((1000, 1000, 3), 200, np.uint8))


def _both(*setups: Setup) -> Setup:
    def setup(folder: Path) -> None:
        for each in setups:
            each(folder)

    return setup


_LISTS = "classes=3\nnames=data/tiny.names\n"
SETUP: dict[str, Setup] = {
    "detector_test/fastest_dog": _coco("dog"),
    "detector_test/fastest_list": _coco("dog"),
    "detector_test/fastest_list_letter": _coco("dog"),
    "detector_map/missing_list": _files(data__nolist_data=_LISTS + "valid=data/none.txt\n"),
    "detector_map/no_valid_key": _files(data__novalid_data=_LISTS, data__train_txt="img/a0.png\n"),
    "detector_valid/no_folder": lambda folder: shutil.rmtree(folder / "results"),
    "detector_valid/nothing_found": _zero_weights,
    "detector_valid/fastest_coco": _coco("dog", "eval=coco\n"),
    "detector_recall/first_without_boxes": _files(
        data__empty_txt="img/a4.png\nimg/a0.png\n", data__empty_data=_LISTS + "valid=data/empty.txt\n"
    ),
    "calc_anchors/wrong_label": _both(_anchor_set, _files(anc__b3_txt="0 0.5 0.5 1.5 0.5\n4 0.5 0.5 0.2 0.2\n")),
    "calc_anchors/missing_label": _both(_anchor_set, lambda folder: (folder / "anc" / "b3.txt").unlink()),
    "calc_anchors": _anchor_set,
    "average": _other_weights,
    "demo": _videos,
    "demo/track": _both(_videos, _changed("det", "track", ("random=0", "random=0\nembedding_layer=-2"))),
    "exif": _turned,
    "unreadable": _damaged,
    "classifier/valid_missing": _missing_class_image,
    "classifier/classify": _copy("data/cls.data", "cfg/imagenet1k.data"),
    "classifier_train/hundred": _changed("cls", "cls100", ("max_batches=12", "max_batches=104")),
    "detector_train/clear": _seen(8),
    "detector_train/continued": _seen(8),
    "detector_train/finished": _seen(24),
    "detector_train/repaired_batch_8": _changed(
        "train", "trainb", ("batch=2", "batch=8"), ("subdivisions=1", "subdivisions=2")
    ),
    "detector_train/batch_8": _changed("train", "trainb", ("batch=2", "batch=8"), ("subdivisions=1", "subdivisions=2")),
    "detector_train/batch_1": _changed("train", "trainb", ("batch=2", "batch=1")),
    "detector_train/map_no_valid": _files(
        data__novalid_data=_LISTS + "train=data/one.txt\nvalid=data/none.txt\nbackup=backup\n"
    ),
    "detector_train/chart_continued": _old_chart,
    "detector_train/random": _changed("train", "trainr", ("random=0", "random=1")),
    "detector_train/no_backup_folder": lambda folder: shutil.rmtree(folder / "backup"),
    "detector_train/no_backup_key": _files(data__nobackup_data=_LISTS + "train=data/one.txt\n"),
    "detector_train/no_train_list": _files(data__nolist_data=_LISTS + "train=data/none.txt\nbackup=backup\n"),
    "detector_train/wrong_filters": _changed(
        "train", "trainf", ("filters=16\nactivation=linear", "filters=18\nactivation=linear")
    ),
}


def prepare(folder: Path, row: str, case: str) -> None:
    """Set up what a command needs in addition to `write_inputs`."""
    setup = SETUP.get(f"{row}/{case}") or SETUP.get(row)
    if setup:
        setup(folder)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])

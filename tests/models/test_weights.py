"""The .weights file: strict checks, byte identity, partial loading, damaged files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from models.network import Network
from models.plan import make_plan
from models.weights import copy_layers, load_weights, save_weights
from utils import cfg
from utils.errors import InputError

BACKBONE = """[net]
width=32
height=32
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[maxpool]
size=2
stride=2
[convolutional]
filters=6
size=3
pad=1
activation=leaky
"""
HEAD = """[convolutional]
filters={filters}
size=1
activation=linear
[yolo]
mask=0,1
anchors=4,4, 8,8
num=2
classes={classes}
"""
# floats by layer: 8*4 + 8*27 = 248, 6 + 6*8*9 = 438, 14 + 14*6 = 98 for two classes
LAYERS = {0: 248, 2: 438, 3: 98}


def network(classes: int = 2, name: str = "small.cfg") -> Network:
    text = BACKBONE + HEAD.format(filters=2 * (5 + classes), classes=classes)
    return Network(make_plan(cfg.parse(text, name))).eval()


def weights_of(net: Network, index: int) -> torch.Tensor:
    weights = net.layers[index].weights
    assert isinstance(weights, torch.Tensor)
    return weights


def file_bytes(floats: int, header: bytes = struct.pack("<iiiQ", 0, 2, 5, 640), seed: int = 0) -> bytes:
    return header + np.random.default_rng(seed).random(floats, np.float32).tobytes()


def written(folder: Path, content: bytes) -> Path:
    path = folder / "a.weights"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<iiiQ", 0, 2, 5, 640),
        struct.pack("<iiiQ", 0, 2, 0, 2**40),
        struct.pack("<iiiQ", 1, 0, 0, 3),
        struct.pack("<iiiI", 0, 1, 0, 640),
    ],
    ids=["0.2.5", "large seen", "1.0", "32-bit seen"],
)
def test_load_and_save_is_byte_identical(tmp_path: Path, header: bytes) -> None:
    content = file_bytes(sum(LAYERS.values()), header)
    net = network()
    loaded = load_weights(net, written(tmp_path, content))
    assert (loaded.layers, loaded.left_out) == ((0, 2, 3), ())
    assert net.seen == loaded.header.seen
    save_weights(net, tmp_path / "b.weights")
    assert (tmp_path / "b.weights").read_bytes() == content


def test_tensor_order(tmp_path: Path) -> None:
    floats = np.arange(sum(LAYERS.values()), dtype=np.float32)
    net = network()
    load_weights(net, written(tmp_path, struct.pack("<iiiQ", 0, 2, 5, 0) + floats.tobytes()))
    norm = net.layers[0].norm
    for place, tensor in enumerate((norm.biases, norm.scales, norm.rolling_mean, norm.rolling_variance)):
        assert torch.equal(tensor.detach(), torch.arange(8) + 8.0 * place)
    assert net.layers[0].weights[0, 0, 0, 1] == 33
    assert net.layers[2].biases[0] == 248


def borders() -> list[int]:
    """Number of floats up to the end of each tensor, and one more."""
    counts = [item.tensor.numel() for _, item in network().stored()]
    edges = np.concatenate(([0], np.cumsum(counts)))[:-1]
    return sorted({int(edge) + extra for edge in edges for extra in (0, 1)})


@pytest.mark.parametrize("floats", borders())
def test_cut_at_every_tensor_border(tmp_path: Path, floats: int) -> None:
    net = network()
    before = [item.tensor.clone() for _, item in net.stored()]
    with pytest.raises(InputError, match=f"has {floats:,} weights, small.cfg needs 784"):
        load_weights(net, written(tmp_path, file_bytes(floats)))
    assert all(torch.equal(old, item.tensor) for old, (_, item) in zip(before, net.stored(), strict=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\0\0\0", "has 3 bytes, too few"),
        (struct.pack("<iii", 0, 2, 5), "has 12 bytes, too few"),
        (struct.pack("<iiiI", 0, 2, 5, 0), "has 16 bytes, too few"),
        (b"<!DOCTYPE html><html>quota exceeded</html>", "is an HTML page"),
        (b"\n <html><body>" + bytes(30), "is an HTML page"),
        (b"PK\x03\x04" + bytes(40), "is a zip archive"),
        (b"\x1f\x8b\x08" + bytes(40), "is a gzip archive"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"[net]\nwidth=32\nheight=32\n", "is the text of a cfg"),
        (b"\x80\x02}q\x00" + bytes(40), "is a Python pickle"),
        (struct.pack("<Q", 40) + b'{"weight":{}}' + bytes(40), "is a safetensors file"),
        (struct.pack("<iiiQ", -1, 2, 5, 0) + bytes(40), "its version would be -1.2.5"),
        (struct.pack("<iiiQ", 0, 2**30, 5, 0) + bytes(40), "is not a Darknet weights file"),
        (file_bytes(784) + b"\0", "ends in the middle of a number"),
        (file_bytes(785), "4 bytes are left over"),
        (file_bytes(248), "looks like a backbone (.conv.2), load it with --partial"),
        (file_bytes(300), "it ends within layer 2 [convolutional] (small.cfg:15)"),
        (file_bytes(784 + 14 * 3), "looks like this network for 5 classes"),
        (file_bytes(784 - 14), "looks like this network for 1 class;"),
    ],
)
def test_mismatched_files(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_weights(network(), written(tmp_path, content))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("value", "position", "message"),
    [
        (np.nan, 5, "layer 0 [convolutional] biases: 1 of 8 values are not finite"),
        (np.inf, 250, "layer 2 [convolutional] biases: 1 of 6 values are not finite"),
        (-1.0, 24, "rolling_variance: has values below zero"),
    ],
)
def test_damaged_values(tmp_path: Path, value: float, position: int, message: str) -> None:
    content = bytearray(file_bytes(784))
    content[20 + 4 * position : 24 + 4 * position] = struct.pack("<f", value)
    with pytest.raises(InputError) as caught:
        load_weights(network(), written(tmp_path, bytes(content)))
    assert message in str(caught.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such weights file"):
        load_weights(network(), tmp_path / "missing.weights")


@pytest.mark.parametrize(
    ("floats", "loaded", "left_out"),
    [(248, (0,), ()), (248 + 438, (0, 2), ()), (700, (0, 2), ()), (784 + 14 * 3, (0, 2), (3,))],
    ids=["backbone", "larger backbone", "cut off", "other classes"],
)
def test_partial(tmp_path: Path, floats: int, loaded: tuple[int, ...], left_out: tuple[int, ...]) -> None:
    net = network()
    head = weights_of(net, 3).clone()
    result = load_weights(net, written(tmp_path, file_bytes(floats)), partial=True)
    assert (result.layers, result.left_out) == (loaded, left_out)
    assert torch.equal(head, weights_of(net, 3))


CLASSIFIER = """[convolutional]
filters=40
size=1
activation=linear
[avgpool]
[softmax]
"""
DETECTOR = """[convolutional]
batch_normalize=1
filters=10
size=1
activation=leaky
""" + HEAD.format(filters=14, classes=2)


def from_text(text: str, name: str) -> Network:
    return Network(make_plan(cfg.parse(text, name))).eval()


@pytest.mark.parametrize(
    ("form", "classes", "taken"),
    [("network", 40, (0, 2)), ("file", 40, (0, 2)), ("file", 1000, (0,))],
    ids=["network", "file that ends there", "file that goes on: up to the last statistics that can be checked"],
)
def test_a_detector_takes_its_backbone_from_a_classifier(
    tmp_path: Path, form: str, classes: int, taken: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    source = from_text(BACKBONE + CLASSIFIER.replace("40", str(classes)), "classifier.cfg")
    for number, (_, item) in enumerate(source.stored()):
        values = np.random.default_rng(number).normal(0, 1, item.tensor.shape).astype(np.float32)
        with torch.no_grad():
            item.tensor.copy_(torch.from_numpy(np.abs(values) if item.kind == "rolling_variance" else values))
    save_weights(source, tmp_path / "classifier.weights")
    detector = from_text(
        BACKBONE + BACKBONE.split("channels=3\n")[1].replace("filters=8", "filters=6") + DETECTOR, "d.cfg"
    )
    before = [item.tensor.clone() for _, item in detector.stored()]
    with caplog.at_level("INFO"):
        if form == "file":
            loaded = load_weights(detector, tmp_path / "classifier.weights", partial=True)
        else:
            loaded = copy_layers(detector, source, "classifier.pt")
    assert loaded.layers == taken
    assert "is the first that is not in the file" in caplog.text and "loaded" in caplog.text
    for old, (index, item) in zip(before, detector.stored(), strict=True):
        if index in taken:
            assert any(torch.equal(item.tensor, other.tensor) for at, other in source.stored() if at == index)
        else:
            assert torch.equal(item.tensor, old)


@pytest.mark.parametrize(("classes", "left_out"), [(2, ()), (5, (3,))])
def test_layers_of_a_network_with_other_classes_are_copied(classes: int, left_out: tuple[int, ...]) -> None:
    net, source = network(), network(classes)
    assert copy_layers(net, source, "a.pt").left_out == left_out
    assert torch.equal(weights_of(net, 2), weights_of(source, 2))


def test_a_file_of_a_different_network_is_rejected(tmp_path: Path) -> None:
    content = np.random.default_rng(0).normal(0, 1, 500).astype(np.float32).tobytes()
    with pytest.raises(InputError, match="rolling_variance: has values below zero"):
        load_weights(network(), written(tmp_path, file_bytes(0) + content), partial=True)
    other = from_text(BACKBONE.replace("filters=8", "filters=9") + HEAD.format(filters=14, classes=2), "other.cfg")
    with pytest.raises(InputError, match=r"a\.pt: no layer matches small\.cfg"):
        copy_layers(network(), other, "a.pt")


def test_cutoff_reads_and_writes_a_backbone(tmp_path: Path) -> None:
    content = file_bytes(784)
    net = network()
    assert load_weights(net, written(tmp_path, content), cutoff=3).layers == (0, 2)
    save_weights(net, tmp_path / "small.conv.3", cutoff=3)
    assert (tmp_path / "small.conv.3").read_bytes() == content[: 20 + 4 * (248 + 438)]


@pytest.mark.parametrize(
    ("key", "floats"), [("dontload=1", 784 - 438), ("dontloadscales=1", 784 - 24)], ids=["dontload", "dontloadscales"]
)
def test_layers_that_are_not_in_the_file(tmp_path: Path, key: str, floats: int) -> None:
    text = BACKBONE + HEAD.format(filters=14, classes=2)
    first = "[convolutional]\nbatch_normalize=1" if "scales" in key else "[convolutional]\nfilters=6"
    net = Network(make_plan(cfg.parse(text.replace(first, f"{first}\n{key}"), "small.cfg")))
    old = weights_of(net, 2).clone()
    load_weights(net, written(tmp_path, file_bytes(floats)))
    assert torch.equal(old, weights_of(net, 2)) == (key == "dontload=1")
    save_weights(net, tmp_path / "b.weights")


def test_saving_counts_what_the_plan_counts(tmp_path: Path) -> None:
    net = network(classes=3)
    net.seen = 77
    save_weights(net, tmp_path / "a.weights")
    assert (tmp_path / "a.weights").stat().st_size == 20 + 4 * net.plan.parameters
    again = network(classes=3)
    assert load_weights(again, tmp_path / "a.weights").header.seen == 77
    image = torch.rand(1, 3, 32, 32)
    for ours, theirs in zip(net(image), again(image), strict=True):
        assert torch.equal(ours, theirs)

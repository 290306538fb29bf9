"""The builder: layer numbers, explicit routes, and errors that name both parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compose.__main__ import main
from compose.backbones import BACKBONES
from compose.catalog import Model, compose_text
from compose.heads import HEADS
from compose.net import Map, Net, Section, write_sections
from compose.training import coco
from models.network import Network
from models.plan import Plan, make_plan
from utils import cfg
from utils.errors import InputError

OSA_AND_CSP = ("csppeleenet", "cspdensenet-ref", "csppeleenetb-ref", "csresnext50", "vovnet27-slim", "vovnet57")
DETECTION_HEADS = (
    "yolov3",
    "yolov3-spp",
    "yolov3-tiny",
    "prn",
    "prn3l",
    "panet-spp",
    "fpn",
    "pan",
    "efm",
    "gfm",
    "cem-sam",
)


def _plan(net: Net) -> Plan:
    text = write_sections([Section("net", {"width": net.side, "height": net.side, "channels": 3}), *net.layers])
    return make_plan(cfg.parse(text))


@pytest.mark.parametrize("backbone", OSA_AND_CSP)
@pytest.mark.parametrize("head", DETECTION_HEADS)
def test_heads_go_on_csp_and_osa_backbones(backbone: str, head: str) -> None:
    assert "[yolo]" in compose_text("x", Model(backbone=backbone, head=head, side=416, training=coco))


@pytest.mark.parametrize(
    ("backbone", "head", "expected"),
    [
        (
            "darknet-ref",
            "efm",
            r"head efm reads /4, /8, /16, /32, backbone darknet-reference offers /64 \(1024 channels\)",
        ),
        ("mobilenet-v2", "efm", r"maxout cannot compress layer \d+ \(96 channels, 26x26\) to 128 channels"),
        ("densenet40", "prn", r"head prn reads /16, /32, backbone densenet40 offers /1 \(160 channels\), /2"),
        ("nothing", "prn", "no backbone 'nothing', expected one of: peleenet"),
        ("peleenet", "nothing", "no head 'nothing', expected one of: classifier"),
    ],
)
def test_refusals_name_both_sides(backbone: str, head: str, expected: str) -> None:
    model = Model(backbone=backbone, head=head, side=416, training=coco)
    with pytest.raises(InputError, match=expected):
        compose_text("x", model)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda net, a, b: net.route(a, b), r"cannot concatenate layer 0 \(8 channels, 32x32\) and layer 1 .*16x16"),
        (lambda net, a, b: net.shortcut(b, a), r"cannot add layer 0 \(8 channels, 32x32\) to layer 1"),
        (
            lambda net, a, b: net.conv(b, 9, 3, groups=4),
            r"4 groups do not divide layer 1 \(6 channels.* into 9 filters",
        ),
        (lambda net, a, b: net.split(b, 0, 4), "into 4 equal parts"),
        (lambda net, a, b: net.gate(a, b), "cannot gate"),
        (lambda net, a, b: net.maxpool(b, 40, padding=0), r"\[maxpool\] would be"),
    ],
)
def test_layers_that_do_not_fit_are_refused(build: object, expected: str) -> None:
    net = Net(32)
    a = net.conv(net.input, 8, 3)
    b = net.conv(a, 6, 3, stride=2)
    with pytest.raises(InputError, match=expected):
        build(net, a, b)


def test_references_are_relative_inside_a_part_and_absolute_across() -> None:
    net = Net(32)
    net.part("first")
    a = net.conv(net.input, 8, 3)
    b = net.conv(a, 8, 3)
    net.shortcut(b, a)
    net.part("second")
    c = net.conv(a, 4)
    net.route(c, b)
    assert [(layer.type, layer.options.get("from", layer.options.get("layers"))) for layer in net.layers] == [
        ("convolutional", None),
        ("convolutional", None),
        ("shortcut", "-2"),
        ("route", "0"),
        ("convolutional", None),
        ("route", "-1,1"),
    ]
    assert "# second\n[route]\nlayers=0\n" in write_sections(net.layers)


def test_subsampling_takes_every_second_pixel() -> None:
    net = Net(8)
    x = net.conv(net.input, 5)
    half = net.subsample(x, 2)
    network = Network(_plan(net)).eval()
    found = network.outputs(torch.rand(1, 3, 8, 8), [x.index, half.index])
    assert half == Map(half.index, 5, 4, 2)
    assert torch.equal(found[half.index], found[x.index][:, :, ::2, ::2])


def test_shapes_agree_with_the_planner() -> None:
    for backbone in BACKBONES.values():
        net = Net(96)
        features = backbone.build(net)
        HEADS["classifier"].build(net, features)
        steps = _plan(net).steps
        for features_map in features.maps.values():
            shape = steps[features_map.index].shape
            assert (shape.channels, shape.height, shape.width) == (
                features_map.channels,
                features_map.side,
                features_map.side,
            )


def test_command_writes_checks_and_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path)]
    assert main(["resnet10", *out]) == 0
    assert main(["resnet10", "--check", *out]) == 0
    (tmp_path / "resnet10.cfg").write_text("[net]\n")
    assert main(["resnet10", "--check", *out]) == 1
    assert "resnet10.cfg: differs" in capsys.readouterr().out
    assert main(["--pair", "vovnet27-slim", "panet-spp", "--img-size", "320", *out]) == 0
    assert "width=320" in (tmp_path / "vovnet27-slim-panet-spp.cfg").read_text()
    assert main(["peleenet-prn31", *out]) == 0, "an old name"
    assert main(["--pair", "csppeleenet", "efm-pelee-plain", *out]) == 0
    assert {"peleenet-prn3l.cfg", "csppeleenet-efm-plain.cfg"} < {path.name for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match="no model 'resnet11' in the catalog"):
        main(["resnet11", *out])

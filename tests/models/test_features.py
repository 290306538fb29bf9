"""Backbones as feature extractors: levels, strides, weights and gradients."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models import features, load
from models.features import backbone_levels
from models.formats.files import save_model
from models.plan import read_plan
from models.weights import save_weights
from profiling.timing import settle_statistics
from tests.paths import REPOSITORY
from utils.errors import InputError

CFGS = REPOSITORY / "cfg"
BACKBONE = """[net]
width=64
height=64
channels=3
[convolutional]
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=leaky
[maxpool]
size=2
stride=2
[convolutional]
batch_normalize=1
filters=6
size=3
pad=1
activation=leaky
[convolutional]
filters=8
size=3
stride=2
pad=1
activation=leaky
"""
CLASSIFIER = BACKBONE + "[convolutional]\nfilters=5\nsize=1\nactivation=linear\n[avgpool]\n[softmax]\n"


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("vovnet39", {"c2": 10, "c3": 18, "c4": 34, "c5": 50}),  # the outputs of the OSA stages
        ("darknet53", {"c2": 11, "c3": 36, "c4": 61, "c5": 74}),  # the last shortcut of each stage
        ("resnet50", {"c2": 13, "c3": 32, "c4": 59, "c5": 74}),
        ("csppeleenet-se", {"c2": 29, "c3": 68, "c4": 135, "c5": 171}),  # the 1x1 maps of SE do not end a stage
        ("yolov3", {"c2": 11, "c3": 36, "c4": 61}),  # a detector's last level must be given
    ],
)
def test_levels_of_known_backbones(name: str, ends: dict[str, int]) -> None:
    found = backbone_levels(read_plan(CFGS / f"{name}.cfg"))
    assert {level: index for level, index in found.items() if level != "c1"} == ends


@pytest.mark.parametrize("path", sorted(CFGS.glob("*.cfg")), ids=lambda path: path.stem)
def test_every_cfg_has_levels_whose_strides_double(path: Path) -> None:
    plan = read_plan(path)
    levels = backbone_levels(plan)
    assert {"c1", "c2"} <= levels.keys() and list(levels.values()) == sorted(levels.values())
    for name, index in levels.items():
        assert plan.input.width / plan.steps[index].shape.width == 2 ** int(name[1:])


def test_maps_are_those_of_the_whole_network(tmp_path: Path) -> None:
    cfg = CFGS / "csppeleenet.cfg"
    whole = settle_statistics(load(cfg))
    save_weights(whole, tmp_path / "a.weights")
    backbone = features(cfg, tmp_path / "a.weights", levels=("c3", "c5"))
    images = torch.rand(1, 3, 96, 64)
    with torch.inference_mode():
        found, wanted = backbone(images), whole.outputs(images, {60, 159})
    assert list(found) == ["c3", "c5"]
    for name, index in {"c3": 60, "c5": 159}.items():
        torch.testing.assert_close(found[name], wanted[index], rtol=0, atol=0)
        _, channels, height, width = found[name].shape
        stride = backbone.strides[name]
        assert (channels, height, width) == (backbone.channels[name], 96 // stride, 64 // stride)
    assert backbone.strides == {"c3": 8, "c5": 32} and backbone.channels == {"c3": 256, "c5": 640}


def test_layers_after_the_last_level_are_left_out_and_the_rest_trains(tmp_path: Path) -> None:
    cfg = tmp_path / "a.cfg"
    cfg.write_text(CLASSIFIER)
    backbone = features(cfg, levels=("c2", "c3")).train()
    assert backbone.layers == {"c2": 2, "c3": 3} and len(backbone.network.layers) == 4
    sum(found.square().sum() for found in backbone(torch.rand(2, 3, 64, 64)).values()).backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


@pytest.mark.parametrize("suffix", [".weights", ".pt", ".safetensors"])
def test_weights_in_every_format(suffix: str, tmp_path: Path) -> None:
    cfg, file = tmp_path / "a.cfg", tmp_path / f"a{suffix}"
    cfg.write_text(CLASSIFIER)
    whole = load(cfg)
    save_model(whole, file)
    found = features(cfg, file, levels={"mine": 3})
    assert torch.equal(next(found.parameters()), next(whole.parameters())) and found.strides == {"mine": 8}


def test_a_backbone_file_is_enough_and_a_shorter_one_is_not(tmp_path: Path) -> None:
    cfg = tmp_path / "a.cfg"
    cfg.write_text(CLASSIFIER)
    whole = load(cfg)
    save_weights(whole, tmp_path / "a.conv.4", cutoff=4)
    save_weights(whole, tmp_path / "a.conv.3", cutoff=3)
    assert features(cfg, tmp_path / "a.conv.4", levels=("c3",)).layers == {"c3": 3}
    assert features(cfg, tmp_path / "a.conv.3", levels="c2").layers == {"c2": 2}
    with pytest.raises(InputError, match=r"a.conv.3: has no weights for layer 3, expected all up to layer 3"):
        features(cfg, tmp_path / "a.conv.3", levels=("c3",))


@pytest.mark.parametrize(
    ("name", "levels", "said"),
    [
        ("yolov3", ("c5",), "no level 'c5', expected one of c1, c2, c3, c4; give the end of a detector's backbone"),
        ("darknet53", ("c7",), "no level 'c7', expected one of c1, c2, c3, c4, c5$"),
        ("darknet53", {"x": 500}, "level x: no layer 500, expected 0 to 77"),
        ("darknet53", (), "expected at least one level"),
    ],
)
def test_levels_that_do_not_exist(name: str, levels: dict[str, int] | tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        features(CFGS / f"{name}.cfg", levels=levels)


def test_a_level_without_a_stride_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.cfg").write_text(BACKBONE.replace("stride=2", "stride=3"))
    with pytest.raises(InputError, match="no power of two"):
        features(tmp_path / "a.cfg", levels={"x": 0})


def test_example_of_a_feature_pyramid() -> None:
    command = [sys.executable, "examples/fpn_features.py", "--cfg", "cfg/cspdensenetb-ref.cfg", "--img-size", "64"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True, check=True
    )
    assert "c5: stride 32, (2, 128, 2, 2)\nc4: stride 16, (2, 128, 4, 4)\nc3: stride 8, (2, 128, 8, 8)\n" in done.stdout
    losses = [float(text) for text in re.findall(r"loss ([\d.]+)", done.stdout)]
    assert len(losses) == 3 and losses[2] < losses[0]

"""Weight norms by source layer: planted values are found through every layer that passes channels on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import info
from models.network import Network
from models.plan import make_plan, read_plan
from models.weights import save_weights
from profiling.weight_norms import channel_origins, weight_norms
from tests.paths import REPOSITORY
from utils.cfg import parse
from utils.cli import EXIT_BAD_INPUT, EXIT_OK, run_script

CFG = """[net]
width=16
height=16
channels=3
[convolutional]
filters=4
size=3
pad=1
[convolutional]
filters=6
size=1
[maxpool]
size=3
stride=1
[route]
layers=-1,0
[dropout]
[convolutional]
filters=4
size=3
pad=1
[route]
layers=-1
groups=2
group_id=1
[route]
layers=-1,3
[convolutional]
filters=2
size=1
[route]
layers=5,0
[convolutional]
filters=8
size=1
groups=2
[maxpool]
maxpool_depth=1
out_channels=2
[convolutional]
filters=1
size=1
"""
# Layers:     0 conv, 1 conv, 2 pool, 3 route, 4 dropout, 5 conv, 6 route, 7 route, 8 conv, 9 route, 10 conv, 11 maxout, 12 conv


def test_origins_of_channels() -> None:
    origins = channel_origins(make_plan(parse(CFG)))
    assert origins[4] == (1,) * 6 + (0,) * 4
    assert origins[7] == (5,) * 2 + (1,) * 6 + (0,) * 4
    assert origins[11] == (11,) * 2  # a maximum over channels has no single origin


@pytest.mark.parametrize("path", sorted((REPOSITORY / "cfg").glob("*.cfg")), ids=lambda path: path.stem)
def test_every_channel_of_every_cfg_has_an_origin(path: Path) -> None:
    plan = read_plan(path)
    origins = channel_origins(plan)
    assert all(len(origins[step.index]) == step.shape.channels for step in plan.steps)
    assert all(source <= step.index for step in plan.steps for source in origins[step.index])


def _planted() -> Network:
    """A network whose weights alternate in sign, so that their plain means would vanish."""
    network = Network(make_plan(parse(CFG)))
    with torch.no_grad():
        for layer in (0, 1, 5, 8, 10, 12):
            network.layers[layer].weights.fill_(0.5)
        network.layers[5].weights[:, :6] = 0.25
        network.layers[5].weights[:, 6:] = 0.75
        network.layers[8].weights[:, :2], network.layers[8].weights[:, 2:8] = 0.1, 0.2
        network.layers[10].weights[:4], network.layers[10].weights[4:] = (
            0.3,
            0.6,
        )  # first group: layer 5, second: layer 0
        for layer in (5, 8, 10):
            network.layers[layer].weights[::2] *= -1
    return network


WANTED = {
    0: {-1: 0.5},
    1: {0: 0.5},
    5: {1: 0.25, 0: 0.75},
    8: {5: 0.1, 1: 0.2, 0: 0.5},
    10: {5: 0.3, 0: 0.6},
    12: {11: 0.5},
}


def test_planted_norms_come_back() -> None:
    found = {each.layer: each.sources for each in weight_norms(_planted())}
    assert found.keys() == WANTED.keys()
    for layer, sources in WANTED.items():
        assert found[layer] == pytest.approx(sources)


def test_info_script_prints_draws_and_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    cfg, weights = tmp_path / "a.cfg", tmp_path / "a.weights"
    cfg.write_text(CFG)
    save_weights(_planted(), weights)
    out, image = tmp_path / "a.json", tmp_path / "norms.png"
    flags = ["--cfg", str(cfg), "--weights", str(weights), "--weight-norms", str(image), "--json", str(out)]
    assert run_script(info.main, flags) == EXIT_OK
    assert "    8   5: 0.1000 (0.20), 1: 0.2000 (0.40), 0: 0.5000 (1.00)" in capsys.readouterr().out
    assert image.read_bytes().startswith(b"\x89PNG")
    (result,) = json.loads(out.read_text())
    assert {each["layer"]: each["sources"] for each in result["weight_norms"]}[5] == pytest.approx(
        {"1": 0.25, "0": 0.75}
    )
    assert run_script(info.main, flags[:4]) == EXIT_BAD_INPUT
    assert run_script(info.main, ["--cfg", str(cfg), str(cfg), "--weight-norms"]) == EXIT_BAD_INPUT

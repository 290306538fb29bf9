"""Every layer of every feature cfg, compared with the original's output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from models.layers.pooling import Maxpool
from models.network import Network
from tests.models.recordings import Recording, all_outputs, pool_as_the_vector_code
from tests.paths import REFERENCE
from tests.recipe import sample_indices

TOLERANCE = 1e-4  # relative to the larger of a value and its layer's standard deviation

NAMES = sorted(path.stem for path in (REFERENCE / "forward").glob("*.npz"))

# Layers that are not compared, and why. Later layers that read them are listed too.
EXCEPTIONS: dict[str, dict[int, str]] = {
    "xnor_conv": {
        2: "binary=1: the original's CPU path convolves with real weights once and with zeros ever after; its GPU path, "
        "which is followed here, reduces them to signs (test_binary_weights)",
        3: "reads layer 2",
    },
    "classifier_avg": {5: "[cost] has no output in the original"},
}


def test_every_feature_cfg_is_recorded_or_accounted_for() -> None:
    cfgs = {path.stem for path in (REFERENCE / "cfg").glob("*.cfg")}
    not_recorded = {"conv_lstm_bottleneck", "shortcut_weights_no_norm"}  # GPU only; rejected by the original
    assert cfgs - not_recorded == set(NAMES)
    assert len(NAMES) >= 57


@pytest.mark.parametrize("name", NAMES)
def test_every_layer(name: str, tmp_path: Path) -> None:
    recording, network = _prepared(name, tmp_path)
    pool_as_the_vector_code(network)
    errors = {
        index: recording.errors(index, output)
        for index, output in all_outputs(network, recording.image(network))
        if index not in EXCEPTIONS.get(name, {})
    }
    assert {index: error for index, error in errors.items() if not error < TOLERANCE} == {}
    assert len(errors) + len(EXCEPTIONS.get(name, {})) == len(network.plan.steps)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "xnor_conv"])
def test_folding_changes_nothing(name: str, tmp_path: Path) -> None:
    recording, network = _prepared(name, tmp_path)
    images = recording.image(network)
    before = [output.clone() for _, output in all_outputs(network, images)]
    for (index, after), reference in zip(all_outputs(network.fold(), images), before, strict=True):
        assert (after - reference).abs().max() <= 1e-5 * max(float(reference.std(correction=0)), 1.0), f"layer {index}"


def test_pooling_without_imitation(tmp_path: Path) -> None:
    """Beyond the first eight columns, the original's vector code need not be imitated."""
    recording, network = _prepared("spp", tmp_path)
    compared = 0
    for index, output in all_outputs(network, recording.image(network)):
        if isinstance(network.layers[index], Maxpool):
            recorded = recording.values[index]
            places = sample_indices(output.numel(), len(recorded))
            right = places % output.shape[3] >= 8
            mine = output.flatten().numpy()[places]
            assert abs(mine - recorded)[right].max() < TOLERANCE * recording.scale(index)
            compared += 1
    assert compared == 3


def test_unfolded_binary_network_equals_the_folded_one(tmp_path: Path) -> None:
    recording, network = _prepared("xnor_conv", tmp_path)
    images = recording.image(network)
    (before,) = network(images)
    (after,) = network.fold()(images)
    assert torch.allclose(before, after, atol=1e-4)


def test_binary_weights(tmp_path: Path) -> None:
    """binary=1 works as on the original's GPU path: sign times mean magnitude of each filter."""
    _, network = _prepared("xnor_conv", tmp_path)
    layer: Any = network.layers[2]
    x = torch.rand(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    weights = layer.weights
    signs = torch.where(weights > 0, 1.0, -1.0) * weights.abs().mean((1, 2, 3), keepdim=True)
    assert torch.allclose(layer(x), F.leaky_relu(layer.norm(F.conv2d(x, signs, padding=1)), 0.1), atol=1e-6)


def _prepared(name: str, directory: Path) -> tuple[Recording, Network]:
    recording = Recording.read(REFERENCE / "forward" / f"{name}.npz")
    return recording, recording.network(REFERENCE / "cfg" / f"{name}.cfg", directory)

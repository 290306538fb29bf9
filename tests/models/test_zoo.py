"""Published cfgs: shapes, operations and parameters of all of them, outputs of those that the original runs.

The cfgs are third-party files outside the repository; without them these tests are skipped. By default, outputs are compared
for the smaller networks only; with the environment variable CSPYOLO_ALL_RECORDINGS=1 for all (several minutes).
"""

from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.network import Network
from models.plan import read_plan
from tests.models.recordings import Recording, all_outputs, pool_as_the_vector_code
from tests.paths import REFERENCE, shared
from tests.recipe import canonical_sha1
from utils.errors import InputError

TOLERANCE = 1e-3  # relative to the larger of a value and its layer's standard deviation
PLANNING_S = 3.0  # limit on the processor time for all cfgs together
SMALL_BYTES = 64 * 2**20

with gzip.open(REFERENCE / "zoo" / "facts.json.gz") as _file:
    FACTS: list[dict[str, Any]] = json.load(_file)["cfgs"]
WITH_LAYERS = [facts for facts in FACTS if "layers" in facts]

# Cfgs that the original rejects. The original does not know route_lhalf either, but it runs here.
REFUSED = {
    "csp/csresnet50-elastic-panet-spp": "expected 13x13",
    "csp/csresnext50-elastic-panet-spp": "expected 13x13",
    "csp/yolov3-spp-matrix": "share_index=115 has weights 256x128x3x3, expected 256x256x3x3",
}


def _recordings() -> dict[str, str]:
    """Cfg name -> file of its recording, with one cfg for each recording to compare."""
    names: dict[str, str] = {}
    sizes = {facts["name"]: facts.get("weights_file_bytes", 0) for facts in FACTS}
    full = os.environ.get("CSPYOLO_ALL_RECORDINGS") == "1"
    for name, file in sorted(json.loads((REFERENCE / "zoo" / "forward_map.json").read_text()).items()):
        if file not in names.values() and (full or sizes[name] <= SMALL_BYTES):
            names[name] = file
    return names


RECORDINGS = _recordings()


def cfg_path(name: str) -> Path:
    return shared("zoo") / f"{name}.cfg"


@pytest.mark.parametrize("facts", WITH_LAYERS, ids=lambda facts: facts["name"])
def test_plan_matches_the_original(facts: dict[str, Any]) -> None:
    path = cfg_path(facts["name"])
    assert canonical_sha1(path.read_bytes()) == facts["canon_sha1"], "the cfg is another one than was recorded"
    plan = read_plan(path)
    total = np.float32(0)
    assert len(plan.steps) == facts["n_layers"]
    for step, layer in zip(plan.steps, facts["layers"], strict=True):
        place = f"layer {step.index} [{step.raw.name}]"
        billions = np.float32(step.cost.operations / 1e9)
        total += billions
        # the original leaves the shape of some flat layers at zero
        assert step.reported_shape.hwc == tuple(layer["out"]) or not any(layer["out"]), place
        assert step.shape.outputs == layer["outputs"], place
        assert billions == np.float32(layer["bflops"]), place
        assert step.cost.parameters == layer["params"], place
    assert total == np.float32(facts["bflops_total_f32"])
    assert plan.parameters == facts["params"]


@pytest.mark.parametrize(("name", "message"), REFUSED.items())
def test_cfgs_that_the_original_rejects(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_plan(cfg_path(name))


def test_every_cfg_is_planned_or_refused() -> None:
    names = {facts["name"] for facts in FACTS}
    assert names - {facts["name"] for facts in WITH_LAYERS} == {*REFUSED, "pytorch_yolov4/yolov4-tiny"}
    assert len(names) == 165


def test_route_of_left_halves() -> None:
    plan = read_plan(cfg_path("pytorch_yolov4/yolov4-tiny"))
    halves = [step for step in plan.steps if step.raw.name == "route_lhalf"]
    assert len(halves) == 3
    assert all(2 * step.shape.channels == step.site.input.channels for step in halves)


def test_planning_is_fast() -> None:
    paths = [cfg_path(facts["name"]) for facts in FACTS]
    assert min(_planning_time(paths) for _ in range(2)) < PLANNING_S


def _planning_time(paths: list[Path]) -> float:
    start = time.process_time()
    for path in paths:
        try:
            read_plan(path)
        except InputError:
            continue
    return time.process_time() - start


@pytest.mark.parametrize(("name", "file"), RECORDINGS.items(), ids=list(RECORDINGS))
def test_outputs(name: str, file: str, tmp_path: Path) -> None:
    recording = Recording.read(REFERENCE / "zoo" / "forward" / file)
    network = _network(recording, cfg_path(name), tmp_path)
    if recording.meta.get("xnor_fused_only"):
        network.fold()
    pool_as_the_vector_code(network)
    wrong = {}
    for index, output in all_outputs(network, recording.image(network)):
        if not recording.holds(index):
            assert network.plan.steps[index].raw.name == "cost"
            continue
        error = max(recording.errors(index, output), recording.statistics_error(index, output))
        if not error < TOLERANCE:
            wrong[index] = error
    assert wrong == {}


def _network(recording: Recording, cfg: Path, directory: Path) -> Network:
    try:
        return recording.network(cfg, directory)
    except InputError as error:
        if "9k.tree" not in str(error):
            raise
        pytest.skip("needs 9k.tree, which is not distributed with the cfg")


def test_resnet_runs_where_the_original_aborts() -> None:
    """Shortcuts between layers of different size: the original has the code, but an assertion prevents its use."""
    network = Network(read_plan(cfg_path("csp/resnet10"))).eval()
    for layer in network.layers:
        norm = getattr(layer, "norm", None)
        if norm is not None:
            norm.rolling_variance.fill_(1)
    with torch.inference_mode():
        (output,) = network(torch.rand(2, 3, 256, 256))
    assert output.shape == (2, 1000, 1, 1)
    assert torch.allclose(output.sum(1), torch.ones(2, 1, 1))

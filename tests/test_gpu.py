"""Comparison with the recordings of the original on a GPU: `pytest -m gpu`. Without a GPU, a dry run on the CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import train
from benchmarks.kills import prepare as prepare_run
from data.image import read_image
from data.scenes import make_scenes
from inference.cuda import GraphedNetwork
from inference.model import TORCH, model_of, open_model
from inference.predictor import NmsOptions
from models.load import load
from models.network import Network
from tests.models.heads.test_recorded_deltas import RECORDINGS as DELTAS
from tests.models.heads.test_recorded_deltas import load as load_delta
from tests.models.heads.test_recorded_deltas import loss_of
from tests.models.recordings import Recording, all_outputs, pool_as_the_vector_code
from tests.models.test_forward_parity import EXCEPTIONS, NAMES, TOLERANCE
from tests.paths import REFERENCE, REPOSITORY
from tests.training.test_survival import STOPPED
from tests.training.test_training_steps import RECORDINGS as STEPS
from tests.training.test_training_steps import compare_weights, prepare, stored_values
from training.checkpoint import load_checkpoint
from training.loop import Update
from training.run import Run
from utils.cli import EXIT_INTERRUPTED, EXIT_OK, run_script
from utils.device import select_device

pytestmark = pytest.mark.gpu
ON_GPU = torch.cuda.is_available()
SCENES = REPOSITORY / "weights" / "scenes.cfg"
WEIGHTS = REPOSITORY / "weights" / "scenes.weights"
SAMPLES = sorted((REPOSITORY / "data" / "samples").glob("*.jpg"))


@pytest.fixture
def device() -> torch.device:
    return select_device("")


def some(items: Any, every: int) -> Any:
    """All items on a GPU; in a dry run one of `every`, because other tests run all of them on the CPU."""
    return items if ON_GPU else items[::every]


@pytest.mark.parametrize("name", some(NAMES, 6))
def test_every_layer(name: str, device: torch.device, tmp_path: Path) -> None:
    recording = Recording.read(REFERENCE / "forward" / f"{name}.npz")
    network = recording.network(REFERENCE / "cfg" / f"{name}.cfg", tmp_path).to(device)
    pool_as_the_vector_code(network)
    errors = {
        index: recording.errors(index, output.cpu())
        for index, output in all_outputs(network, recording.image(network).to(device))
        if index not in EXCEPTIONS.get(name, {})
    }
    assert {index: error for index, error in errors.items() if not error < TOLERANCE} == {}


@pytest.mark.parametrize("path", some(DELTAS, 6), ids=lambda path: path.stem)
def test_delta(path: Path, device: torch.device) -> None:
    head, x, recording, meta = load_delta(path)
    x = x.to(device).requires_grad_()
    loss = loss_of(head.to(device), x, torch.from_numpy(recording["truth"]).to(device), meta)
    loss.value.backward()
    assert x.grad is not None
    delta = -x.grad.flatten(1).cpu().numpy()
    np.testing.assert_allclose(delta, recording["delta"], rtol=2e-4, atol=2e-6 * np.abs(recording["delta"]).max())
    assert loss.cost == pytest.approx(meta["cost"], rel=1e-5)


@pytest.mark.parametrize("path", some(STEPS, 8), ids=lambda path: path.stem)
def test_updates(path: Path, device: torch.device, tmp_path: Path) -> None:
    recording = np.load(path)
    network, trainer, batches = prepare(recording, path.with_suffix(".cfg"), tmp_path)
    start = stored_values(network)
    network.to(device)
    trainer.device = device
    for step in range(1, 11):
        update = trainer.update(batches)
        assert update.loss == pytest.approx(recording["fixed_loss"][step - 1], rel=1e-4), step
    compare_weights(network.cpu(), recording["fixed_w10"], start, 10)


def found_in(samples: list[Path], **options: Any) -> list[Any]:
    model = open_model(WEIGHTS, cfg=SCENES, **options)
    return [found for each in samples for found in model.predict([read_image(str(each))], NmsOptions())]


def same_boxes(found: list[Any], wanted: list[Any], score: float, pixels: float) -> None:
    for ours, reference in zip(found, wanted, strict=True):
        assert sorted(ours.class_ids.tolist()) == sorted(reference.class_ids.tolist())
        order, other = (np.lexsort((each.xyxy[:, 0].round(), each.class_ids)) for each in (ours, reference))
        np.testing.assert_allclose(ours.scores[order], reference.scores[other], atol=score)
        np.testing.assert_allclose(ours.xyxy[order], reference.xyxy[other], atol=pixels)


def test_boxes(device: torch.device) -> None:
    """From the third pass on, a CUDA graph is replayed."""
    wanted = found_in(SAMPLES, backend=TORCH, device="cpu")
    same_boxes(found_in(SAMPLES * 2, device=str(device)), wanted * 2, 1e-3, 0.1)


def test_boxes_in_sixteen_bits(device: torch.device) -> None:
    if not ON_GPU:
        pytest.skip("needs a GPU: float16 on a CPU is no product of ours")
    wanted = found_in(SAMPLES, backend=TORCH, device="cpu")
    same_boxes(found_in(SAMPLES * 2, device=str(device), half=True), wanted * 2, 0.03, 2)


def rehearsed(network: Network, images: Tensor) -> Any:
    """A stand-in for a CUDA graph: it has the same fixed buffers but computes normally."""
    own = images.clone()
    outputs = [each.clone() for each in network(own)]

    def replay(images: Tensor) -> tuple[Tensor, ...]:
        own.copy_(images)
        for output, new in zip(outputs, network(own), strict=True):
            output.copy_(new)
        return tuple(output.clone() for output in outputs)

    return replay


@torch.inference_mode()
def test_graphs_replay_what_the_network_computes(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load(SCENES, WEIGHTS).to(device).fold()
    if not ON_GPU:
        monkeypatch.setattr("inference.cuda.captured", rehearsed)
    graphed = GraphedNetwork(network)
    generator = torch.Generator().manual_seed(0)
    for count in (1, 2, 1, 1, 2, 1, 2, 3, 1):
        images = torch.rand(count, 3, 320, 320, generator=generator).to(device)
        first = graphed(images)
        graphed(images.flip(3))  # must not overwrite the outputs of the previous pass
        for ours, wanted in zip(first, network(images), strict=True):
            torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_network_that_cannot_be_captured_runs_layer_by_layer(
    device: torch.device, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, tried = load(SCENES, WEIGHTS).to(device).fold(), []

    def refuse(network: Network, images: Tensor) -> Any:
        tried.append(images.shape)
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr("inference.cuda.captured", refuse)
    graphed = GraphedNetwork(network)
    images = torch.rand(1, 3, 320, 320, device=device)
    for _ in range(5):
        for ours, wanted in zip(graphed(images), network(images), strict=True):
            torch.testing.assert_close(ours, wanted)
    assert len(tried) == 1 and caplog.text.count("cannot be captured") == 1


@torch.inference_mode()
def test_few_graphs_are_kept(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    network, made = load(SCENES, WEIGHTS).to(device).fold(), []

    def note(network: Network, images: Tensor) -> Any:
        made.append(len(images))
        return network

    monkeypatch.setattr("inference.cuda.captured", note)
    graphed = GraphedNetwork(network)
    for _ in range(3):
        for count in range(1, 7):
            graphed(torch.rand(count, 3, 32, 32, device=device))
    assert made == [1, 2, 3, 4, 5, 6] and len(graphed._passes) == 4


def test_automatic_choice(device: torch.device) -> None:
    network = model_of(load(SCENES, WEIGHTS).to(device), device).network
    assert isinstance(network, GraphedNetwork) == ON_GPU
    assert isinstance(model_of(load(SCENES, WEIGHTS).to(device), device, backend=TORCH).network, Network)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_scenes(tmp_path_factory.mktemp("drawn") / "scenes", 24))


FLAGS = ["--cfg", str(SCENES), "--img-size", "96", "--batch-size", "4", "--subdivisions", "2", "--no-val", "--no-plots"]


def losses(folder: Path, data: str, *flags: str) -> list[float]:
    name = f"{len(list(folder.iterdir()))}"
    arguments = [*FLAGS, "--data", data, "--workers", "1", "--project", str(folder), "--name", name, *flags]
    assert run_script(train.main, arguments) == EXIT_OK
    return [row["loss"] for row in load_checkpoint(folder / name / "weights" / "last.pt").history["rows"]]


def test_mixed_precision_follows_the_curve_of_the_cpu(device: torch.device, drawn: str, tmp_path: Path) -> None:
    long = ("--iterations", "60" if ON_GPU else "8", "--set", "random=1")
    wanted = losses(tmp_path, drawn, "--device", "cpu", *long)
    for amp in ("bf16", "fp16") if ON_GPU else ("bf16",):
        found = losses(tmp_path, drawn, "--device", str(device), "--amp", amp, *long)
        assert np.mean(found) == pytest.approx(np.mean(wanted), rel=0.05)


@pytest.mark.parametrize(
    "flags", [("--ema-alpha", "0.99"), ("--set", "adversarial_lr=0.05", "burn_in=1"), ("--adamw",)]
)
def test_resume(
    device: torch.device, drawn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    common = (*FLAGS, "--data", drawn, "--workers", "0", "--project", str(tmp_path), "--iterations", "6")
    whole, parts = (tmp_path / name / "weights" / "last.pt" for name in ("whole", "parts"))
    assert run_script(train.main, [*common, "--device", str(device), "--name", "whole", *flags]) == EXIT_OK
    average = Run._average

    def stop(self: Run, update: Update) -> None:
        average(self, update)
        if update.iteration == 3:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_average", stop)
        assert run_script(train.main, [*common, "--device", str(device), "--name", "parts", *flags]) == EXIT_INTERRUPTED
    assert run_script(train.main, ["--resume", str(parts), "--device", str(device), "--workers", "0"]) == EXIT_OK
    curves = [[row["loss"] for row in load_checkpoint(path).history["rows"]] for path in (parts, whole)]
    assert curves[0] == pytest.approx(curves[1], rel=1e-3 if ON_GPU else 0)  # cuDNN sums in any order


def test_a_killed_process_is_resumed(device: torch.device, tmp_path: Path) -> None:
    prepare_run(tmp_path, 200, 5, filters=8)

    def end(number: int, iteration: int, *arguments: str) -> int:
        command = [sys.executable, "-c", STOPPED, str(number), str(iteration), *arguments, "--workers", "0"]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        return subprocess.run([*command, "--device", str(device)], cwd=tmp_path, env=environment).returncode

    def start(name: str) -> list[str]:
        return ["--cfg", "my.cfg", "--data", "my.data", "--no-val", "--no-plots", "--project", ".", "--name", name]

    assert end(signal.SIGTERM, 12, *start("whole")) == EXIT_INTERRUPTED
    assert end(signal.SIGKILL, 8, *start("parts")) == -signal.SIGKILL
    whole, parts = (tmp_path / name / "weights" / "last.pt" for name in ("whole", "parts"))
    assert load_checkpoint(parts).iteration == 5
    assert end(signal.SIGTERM, 12, "--resume", str(parts)) == EXIT_INTERRUPTED
    curves = [[row["loss"] for row in load_checkpoint(path).history["rows"]] for path in (parts, whole)]
    assert curves[0] == pytest.approx(curves[1], rel=1e-3 if ON_GPU else 0)


def test_memory_that_runs_out_raises_subdivisions(
    device: torch.device, drawn: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if not ON_GPU:
        pytest.skip("needs a GPU: tests/training/test_loop.py rehearses it")
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 1.5e9 / total), device)
    try:
        sizes = ("--batch-size", "256", "--subdivisions", "1", "--img-size", "416")
        assert losses(tmp_path, drawn, "--device", str(device), "--iterations", "2", *sizes)
        assert "subdivisions raised" in caplog.text
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)

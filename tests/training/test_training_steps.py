"""Ten updates of small networks compared with the original: weights after 1, 2 and 10, losses, rates, first gradients."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data.loader import TrainBatch
from models.batchnorm import CPU_MOMENTUM, BatchNorm
from models.layers.base import Step
from models.network import Network
from models.plan import read_plan
from models.training import Training
from models.weights import load_weights
from tests.paths import REFERENCE
from tests.recipe import input_image, weights_file
from training.loop import Trainer
from training.optimizer import DarknetOptimizer
from training.schedule import Schedule
from utils.net_options import ScheduleOptions

RECORDINGS = sorted((REFERENCE / "train").glob("*.npz"))
IN_TURN = ("dropout0",)  # draws random numbers, which passes at the same time would take in any order
CASES = [(path, at_once) for path in RECORDINGS for at_once in (1, 2) if at_once == 1 or path.stem not in IN_TURN]
GRADIENTS = {"wupd": ("weights", "shortcut_weights", "implicit_weights"), "bupd": ("biases",), "supd": ("scales",)}
NEVER_UPDATED = ("connected",)  # the original does not set `train` for these


def name_of(network: Network, layer: int) -> str:
    return network.plan.steps[layer].raw.name


def options_of(network: Network) -> ScheduleOptions:
    # The recordings are from the CPU build, which does not have Adam.
    options = ScheduleOptions.from_raw(network.plan.cfg.sections[0])
    return ScheduleOptions(**{**vars(options), "adam": False})


def stored_values(network: Network) -> Any:
    """All stored tensors concatenated, as in the .weights file."""
    return np.concatenate([item.tensor.detach().reshape(-1).numpy() for _, item in network.stored()])


def recorded_boxes(truth: Tensor) -> Tensor:
    """Labels (n, boxes, 5) from the original's rows (x, y, w, h, class, track), or [detection] cells (present, classes, box)."""
    if truth.shape[1] % 6 == 0:
        return truth.view(len(truth), -1, 6)[..., :5]
    cells = truth.view(len(truth), 4, 7)
    boxes = torch.cat((cells[..., 3:], cells[..., 1:3].argmax(2, keepdim=True)), 2)
    corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    boxes[..., :2] = (boxes[..., :2] + corner) / 2
    order = cells[..., 0].argsort(dim=1, descending=True, stable=True)
    kept = boxes * cells[..., :1]
    return torch.stack([image[places] for image, places in zip(kept, order, strict=True)])


def prepare(recording: Any, cfg: Path, folder: Path, at_once: int = 1) -> tuple[Network, Trainer, list[TrainBatch]]:
    meta = json.loads(str(recording["meta"]))
    network = Network(read_plan(cfg))
    path = folder / "start.weights"
    path.write_bytes(weights_file(network.tensors()))
    load_weights(network, path)
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.momentum = CPU_MOMENTUM
    lose_gradients_as_the_cpu_does(network)
    options = options_of(network)
    training = Training(network)
    updated = [item for item in training.tensors(options.burn_in) if name_of(network, item.layer) not in NEVER_UPDATED]
    optimizer = DarknetOptimizer(updated, options)
    batch, subdivisions = meta["batch"], meta["subdivisions"]
    trainer = Trainer(
        training,
        optimizer,
        Schedule(options),
        batch=batch,
        subdivisions=subdivisions,
        device=torch.device("cpu"),
        replicas=[training.replica() for _ in range(at_once - 1)],
    )
    size = network.plan.input
    images = torch.from_numpy(input_image(batch * size.outputs)).view(batch, size.channels, size.height, size.width)
    truth = torch.from_numpy(recording["truth"])
    if training.network.plan.box_heads:
        truth = recorded_boxes(truth)
    parts = zip(images.chunk(subdivisions), truth.chunk(subdivisions), strict=True)
    batches = [TrainBatch(images=each, ground_truth=targets, iteration=0, subdivision=0) for each, targets in parts]
    return network, trainer, batches


@pytest.mark.slow
@pytest.mark.parametrize(("path", "at_once"), CASES, ids=lambda value: getattr(value, "stem", value))
def test_updates_are_the_originals(path: Path, at_once: int, tmp_path: Path) -> None:
    recording = np.load(path)
    network, trainer, batches = prepare(recording, path.with_suffix(".cfg"), tmp_path, at_once)
    draws = any(layer.draws for layer in network)
    assert Training(network).has_independent_passes != draws
    start = stored_values(network)
    for step in range(1, 11):
        state = torch.get_rng_state()
        update = trainer.update(batches)
        assert draws or torch.equal(torch.get_rng_state(), state)
        assert update.rate == pytest.approx(recording["fixed_rate"][step - 1], rel=1e-6)
        assert update.loss == pytest.approx(recording["fixed_loss"][step - 1], rel=1e-4), step
        if step == 1:
            compare_gradients(network, recording)
        if step in (1, 2, 10):
            compare_weights(network, recording[f"fixed_w{step}"], start, step)
    assert trainer.seen == 10 * trainer.batch


def compare_weights(network: Network, expected: Any, start: Any, step: int) -> None:
    found = stored_values(network)
    position = 0
    for index, item in network.stored():
        part = slice(position, position + item.tensor.numel())
        position = part.stop
        error = np.linalg.norm(found[part] - expected[part])
        place = f"layer {index} {item.kind} after {step} updates"
        # This is the original's rounding error: our weights differ from those in double precision by less than 1e-6.
        limit = 2e-4 if item.kind.startswith("rolling") else 1e-4
        assert error <= limit * np.linalg.norm(expected[part]) + 2e-5, place
        assert error <= 2e-3 * np.linalg.norm(expected[part] - start[part]) + 5e-5, f"{place}: way from the start"
    assert position == len(expected)


def compare_gradients(network: Network, recording: Any) -> None:
    compared = 0
    for index, item in network.stored():
        name = next((name for name, kinds in GRADIENTS.items() if item.kind in kinds), None)
        key = f"fixed_{name}_{index:03d}"
        if name is None or key not in recording.files:
            continue
        expected = recording[key]
        gradient = item.tensor.grad
        found = np.zeros_like(expected) if gradient is None else -gradient.numpy().reshape(-1)
        # The gradient of a bias before batch normalisation is zero except for rounding.
        assert np.linalg.norm(found - expected) <= 2e-4 * np.linalg.norm(expected) + 2e-3, key
        compared += 1
    assert compared


def lose_gradients_as_the_cpu_does(network: Network) -> None:
    """Drop the gradients that the original's CPU build loses, so that the network matches the recordings.

    Its convolutions and [batchnorm] overwrite the delta of the previous layer instead of adding to it (col2im.c
    col2im_cpu_ext, batchnorm_layer.c), as does [sam] with that of its `from` (sam_layer.c); contributions of later readers are
    lost. With cuDNN everything is summed, as in this project, but the recordings are from the CPU build.
    """
    steps = network.plan.steps
    for source in range(len(steps)):
        readers = [step for step in steps if source in step.sources]
        writers = [step.index for step in readers if overwrites(step, source)]
        for reader in readers:
            if any(writer < reader.index for writer in writers):
                position = reader.sources.index(source)
                network.layers[reader.index].register_forward_pre_hook(functools.partial(detach, position))


def overwrites(reader: Step, source: int) -> bool:
    if reader.raw.name == "sam":
        return reader.sources[1] == source
    return reader.raw.name in ("convolutional", "batchnorm")


def detach(position: int, module: object, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.detach() if place == position else x for place, x in enumerate(inputs))

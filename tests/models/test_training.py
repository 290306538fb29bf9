"""Keys that freeze parts of a network, as in the original's GPU build: which layers get gradients, change, and normalise how."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch

from data.loader import TrainBatch
from models.network import Network
from models.plan import make_plan
from models.training import Training
from tests.paths import REPOSITORY
from training.loop import Trainer
from training.optimizer import DarknetOptimizer
from training.schedule import Schedule
from utils import cfg
from utils.errors import InputError
from utils.net_options import ScheduleOptions

NET = "[net]\nwidth=16\nheight=16\nchannels=3\nbatch=2\nburn_in=10\n"
CONV = "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\npad=1\nactivation=leaky\n"
HEAD = "[convolutional]\nfilters=14\nsize=1\nactivation=linear\n[yolo]\nmask=0,1\nanchors=4,4, 8,8\nclasses=2\nnum=2\n"
OPTIONS = ScheduleOptions(learning_rate=0.1, decay=0.01, burn_in=10)


def make(*keys: str, head: str = HEAD) -> Network:
    """Three convolutions, the n-th with the extra keys[n], and a head."""
    torch.manual_seed(0)
    return Network(make_plan(cfg.parse(NET + "".join(CONV + key for key in keys) + head, "test.cfg")))


def after_update(network: Network, iteration: int = 1, freeze: int = 0) -> Network:
    """A copy of the network after one update."""
    network = copy.deepcopy(network)
    training = Training(network, freeze)
    optimizer = DarknetOptimizer(training.tensors(OPTIONS.burn_in), OPTIONS)
    training.begin(iteration)
    images = torch.rand(2, 3, 16, 16)
    truth = torch.tensor([[[0.5, 0.5, 0.3, 0.3, 1.0], [0.0] * 5]] * 2)
    losses = training.losses(images, truth, 2)
    torch.stack([loss.objective for loss in losses]).sum().backward()
    optimizer.step(iteration, 0.1, 2)
    return network


def moved(before: Network, after: Network) -> dict[int, set[str]]:
    """Kinds of tensors that changed, by layer."""
    result: dict[int, set[str]] = {}
    for (index, old), (_, new) in zip(before.stored(), after.stored(), strict=True):
        if not torch.equal(old.tensor, new.tensor):
            result.setdefault(index, set()).add(old.kind)
    return result


STATISTICS = {"rolling_mean", "rolling_variance"}
ALL = STATISTICS | {"biases", "scales", "weights"}
PLAIN_HEAD = {3: {"biases", "weights"}}


@pytest.mark.parametrize(
    ("keys", "iteration", "expected"),
    [
        (("", "", ""), 1, {0: ALL, 1: ALL, 2: ALL}),
        (("", "stopbackward=1\n", ""), 1, {1: STATISTICS | {"weights"}, 2: ALL}),
        (("", "stopbackward=5\n", ""), 5, {0: STATISTICS | {"weights"}, 1: STATISTICS | {"weights"}, 2: ALL}),
        (("", "stopbackward=5\n", ""), 6, {0: ALL, 1: ALL, 2: ALL}),
        (("", "onlyforward=1\n", ""), 1, {0: STATISTICS | {"weights"}, 1: STATISTICS | {"weights"}, 2: ALL}),
        (("", "train_only_bn=1\n", ""), 1, {0: STATISTICS, 1: STATISTICS, 2: ALL}),
        (("", "dont_update=3\n", ""), 3, {0: ALL, 1: STATISTICS, 2: ALL}),
        (("", "dont_update=3\n", ""), 4, {0: ALL, 1: ALL, 2: ALL}),
        (("", "burnin_update=2\n", ""), 19, {0: ALL, 1: STATISTICS, 2: ALL}),
        (("", "burnin_update=2\n", ""), 20, {0: ALL, 1: ALL, 2: ALL}),
    ],
)
def test_what_one_update_changes(keys: tuple[str, ...], iteration: int, expected: dict[int, set[str]]) -> None:
    before = make(*keys)
    assert moved(before, after_update(before, iteration)) == expected | PLAIN_HEAD


def test_frozen_layers_do_not_change_at_all() -> None:
    before = make("", "", "")
    assert moved(before, after_update(before, freeze=2)) == {2: ALL} | PLAIN_HEAD


def test_a_layers_own_rate_and_clip() -> None:
    before = make("learning_rate=0\n", "clip=0.05\n", "")
    after = after_update(before)
    assert 0 not in moved(before, after) or moved(before, after)[0] == STATISTICS
    assert after.layers[1].weights.detach().abs().max().item() == pytest.approx(0.05)


def test_shared_weights_are_updated_once() -> None:
    network = make("", "", "share_index=-1\n")
    tensors = [item.tensor for item in Training(network).tensors(0)]
    assert len(tensors) == len({id(tensor) for tensor in tensors}) == 8


@pytest.mark.parametrize(
    ("head", "freeze", "message"),
    [
        ("", 0, "no layer with a loss"),
        (HEAD, 9, "frozen"),
        (HEAD, 2, "with weights is frozen"),
        (HEAD + "onlyforward=1\n", 0, "frozen"),
    ],
)
def test_nothing_to_train_is_refused(head: str, freeze: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Training(make("", head=head), freeze)


SHARED = "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\npad=1\nactivation=leaky\nshare_index=1\n"


def trained(at_once: int, subdivisions: int, updates: int = 3) -> tuple[Network, list[float]]:
    """A network with shared weights after some updates, and the losses of these."""
    torch.manual_seed(0)
    network = Network(make_plan(cfg.parse(NET + CONV * 2 + SHARED + HEAD, "test.cfg")))
    training = Training(network)
    trainer = Trainer(
        training,
        DarknetOptimizer(training.tensors(0), OPTIONS),
        Schedule(OPTIONS),
        batch=2 * subdivisions,
        subdivisions=subdivisions,
        device=torch.device("cpu"),
        replicas=[training.replica() for _ in range(at_once - 1)],
    )
    images = torch.rand(updates, subdivisions, 2, 3, 16, 16)
    truth = torch.tensor([[[0.5, 0.5, 0.3, 0.3, 1.0], [0.0] * 5]] * 2)
    groups = [
        [TrainBatch(images=part, ground_truth=truth, iteration=0, subdivision=0) for part in group] for group in images
    ]
    return network, [trainer.update(group).loss for group in groups]


@pytest.mark.parametrize(("at_once", "subdivisions"), [(2, 1), (2, 2), (2, 5), (3, 5), (8, 5)])
def test_passes_at_the_same_time_are_those_in_turn(at_once: int, subdivisions: int) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums within an operation depend on the number of threads
    try:
        (found, losses), (expected, in_turn) = (trained(count, subdivisions) for count in (at_once, 1))
    finally:
        torch.set_num_threads(threads)
    assert losses == in_turn
    for (_, one), (_, other) in zip(found.stored(), expected.stored(), strict=True):
        assert torch.equal(one.tensor, other.tensor), one.kind


def test_a_replica_reads_the_weights_and_keeps_its_gradients_and_statistics() -> None:
    training = Training(make(""))
    replica = training.replica()
    own, copied = (next(iter(each.network.parameters())) for each in (training, replica))
    own.data += 1
    assert torch.equal(own, copied)
    copied.grad = torch.ones_like(copied)
    assert own.grad is None
    training.absorb(replica)
    assert own.grad is not None and copied.grad is None


@pytest.mark.parametrize(
    ("text", "independent"),
    [
        (CONV, True),
        (CONV + "cbn=1\n", False),
        (CONV + "[dropout]\nprobability=.5\n", False),
        (CONV + "[dropout]\nprobability=.5\ndropblock=1\ndropblock_size_abs=2\n", False),
        ("[crop]\ncrop_height=16\ncrop_width=16\n" + CONV, False),
    ],
)
def test_passes_that_depend_on_their_order_are_known(text: str, independent: bool) -> None:
    network = Network(make_plan(cfg.parse(NET + text + HEAD, "test.cfg")))
    assert Training(network).has_independent_passes == independent


STRIDED = "[convolutional]\nbatch_normalize=1\nfilters=6\nsize=1\nstride=2\npad=1\nactivation=leaky\n"
THREADED = """
import sys, torch
from models.network import Network
from models.plan import make_plan
from utils import cfg
torch.set_num_threads(int(sys.argv[1]))
network = Network(make_plan(cfg.parse(sys.argv[2], "test.cfg")))
for _ in range(200):
    images = torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    network(images)[0].square().sum().backward()
"""


@pytest.mark.parametrize("threads", [3, 5, 8])
def test_strided_pointwise_convolutions_train_with_any_number_of_threads(threads: int) -> None:
    """oneDNN's gradient of their weights destroys the heap with some numbers of threads."""
    text = NET.replace("=16", "=64") + CONV + STRIDED + STRIDED.replace("stride=2", "stride=4") + HEAD
    command = [sys.executable, "-c", THREADED, str(threads), text]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "keys", ["stride=2\n", "stride=3\n", "stride_x=2\nstride_y=1\n", "stride=2\npadding=1\npad=0\n"]
)
def test_a_strided_pointwise_convolution_is_the_same_in_training(keys: str) -> None:
    torch.manual_seed(0)
    text = NET + "[convolutional]\nfilters=4\nsize=1\npad=1\nactivation=linear\n" + keys
    network = Network(make_plan(cfg.parse(text, "test.cfg")))
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        trained, expected = network.train()(images)[0], network.eval()(images)[0]
    torch.testing.assert_close(trained, expected)

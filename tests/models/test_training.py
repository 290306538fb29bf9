"""Keys that freeze parts of a network, as in the original's GPU build: which layers get gradients, change, and normalise how."""

from __future__ import annotations

import copy

import pytest
import torch

from models.network import Network
from models.plan import make_plan
from models.training import Training
from training.optimizer import DarknetOptimizer
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

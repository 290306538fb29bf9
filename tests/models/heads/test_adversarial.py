"""Self-adversarial training: the heads' delta written out box by box, and how far an image is perturbed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from models.network import Network
from models.plan import make_plan
from models.training import Training
from training.adversarial import AdversarialPerturbation, perturb
from utils import cfg

CLASSES, ANCHORS, SIDE = 3, 2, 4
YOLO = (
    "[yolo]\nmask=0,1\nanchors=6,4, 9,12\nclasses=3\nnum=2\nscale_x_y=1.1\nobj_normalizer=0.7\ndelta_normalizer=0.5\n"
)
GAUSSIAN = YOLO.replace("[yolo]", "[Gaussian_yolo]")
NET = "[net]\nwidth=4\nheight=4\nchannels=3\nbatch=2\n"


def make(head: str, extra: str = "", before: str = "") -> Network:
    torch.manual_seed(1)
    entries = (9 if "Gauss" in head else 5) + CLASSES
    conv = f"[convolutional]\nfilters={ANCHORS * entries}\nsize=1\nactivation=linear\n{extra}"
    network = Network(make_plan(cfg.parse(NET + before + conv + head, "test.cfg")))
    with torch.no_grad():
        for _, item in network.stored():
            if item.kind == "weights":
                item.tensor.normal_(0, 1.5)
    return network


def plain_delta(output: Any, gaussian: bool) -> Any:
    """The original's loop over boxes for an image without objects, in double precision; output (anchors, entries, h, w)."""
    at = 8 if gaussian else 4
    delta = torch.zeros_like(output)
    sizes = [(6.0, 4.0), (9.0, 12.0)]
    for n in range(ANCHORS):
        for row in range(SIDE):
            for col in range(SIDE):
                o, d = output[n, :, row, col], delta[n, :, row, col]
                w, h = (math.exp(o[4 if gaussian else 2]), math.exp(o[6 if gaussian else 3]))
                scale = math.sqrt(w * sizes[n][0] / 4 * h * sizes[n][1] / 4)
                d[at] = scale * 0.7 * (0 - o[at])
                found = False
                for c in range(at + 1, at + 1 + CLASSES):
                    if o[c] * o[at] > 0.25:
                        d[c] = scale * (0 - o[c])
                        found = True
                if found and not gaussian:
                    for c in range(at + 1, at + 1 + CLASSES):
                        if o[c] * o[at] < 0.25:
                            d[c] = scale * (1 - o[c])
                    for k in range(4):
                        d[k] += scale * (0 - o[k])
    return delta


@pytest.mark.parametrize("head", [YOLO, GAUSSIAN], ids=["yolo", "gaussian"])
def test_an_image_is_perturbed_as_in_the_original(head: str) -> None:
    network = make(head)
    training = Training(network)
    training.begin(5)
    images, truth = torch.rand(2, 3, 4, 4), torch.rand(2, 6, 5)
    weights = network.layers[0].weights.detach().double().reshape(-1, 3)
    output = network(images)[0].detach().double().reshape(2, ANCHORS, -1, SIDE, SIDE)
    wanted = []
    for image, values in zip(images.double(), output, strict=True):
        delta = 0.5 * plain_delta(values, "Gauss" in head).reshape(-1, SIDE * SIDE)
        wanted.append((image + 0.01 * (weights.T @ delta).reshape(3, SIDE, SIDE)).clamp(0, 1))
    gradient = training.attack(images, truth, 8)
    torch.testing.assert_close(perturb(images, gradient, 0.01).double(), torch.stack(wanted), rtol=1e-4, atol=1e-5)
    assert (torch.stack(wanted) - images).abs().max() > 0.05
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_attack_makes_objects_vanish_and_keeps_statistics() -> None:
    conv = "[convolutional]\nbatch_normalize=1\nfilters=6\nsize=3\npad=1\nactivation=leaky\n"
    network = make(YOLO, before=conv)
    training = Training(network)
    training.begin(5)
    images, truth = torch.rand(2, 3, 4, 4), torch.zeros(2, 6, 5)
    training.losses(images, truth, 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    attacked = perturb(images, training.attack(images, truth, 8), 0.001)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(module.training for module in network.modules())
    network.eval()
    objectness = [network(each)[0].reshape(2, ANCHORS, -1, SIDE, SIDE)[:, :, 4].sum() for each in (images, attacked)]
    assert objectness[1] < objectness[0]
    assert attacked.min() >= 0 and attacked.max() <= 1


@pytest.mark.parametrize(("extra", "moves"), [("", True), ("stopbackward=1\n", False), ("onlyforward=1\n", False)])
def test_gradients_that_do_not_reach_the_image_leave_it_unchanged(extra: str, moves: bool) -> None:
    training = Training(make(YOLO, extra))
    training.begin(2)
    assert bool(training.attack(torch.rand(2, 3, 4, 4), torch.zeros(2, 6, 5), 8).any()) == moves


def test_nan_pixels_become_black() -> None:
    assert perturb(torch.ones(1, 1, 1, 2), torch.tensor([[[[float("nan"), 0.25]]]]), 1.0).flatten().tolist() == [
        0,
        0.75,
    ]


def test_half_of_the_passes_are_attacked_after_burn_in() -> None:
    adversary = AdversarialPerturbation(rate=2.0, burn_in=10, max_batches=1000, seed=3)
    assert not any(adversary.step(updates, number) for updates in range(11) for number in range(4))
    steps = [adversary.step(500, number) for number in range(1000)]
    assert set(steps) == {0.0, 1.0}
    assert 430 < sum(step > 0 for step in steps) < 570
